"""What the API answers, without a socket in sight.

A feature is a module of `api/features` with a function `register(app)`. Modules
are found, not listed, so that two features never edit the same line.
"""

import importlib
import json
import pkgutil
import threading

from api import features
from api.store import Store


class Refused(Exception):
    """The request cannot be fulfilled; becomes an answer with `status`."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


class Text:
    """An answer that is not JSON."""

    def __init__(self, content, kind):
        self.content = content
        self.kind = kind


class App:
    def __init__(self):
        self.store = Store()
        self.on_remove = []
        """Called with every todo that is deleted."""
        self._fields = {"title": (title, None), "done": (truth, False)}
        self._routes = []
        self._lock = threading.Lock()
        self._add_routes()
        for module in pkgutil.iter_modules(features.__path__):
            importlib.import_module(f"api.features.{module.name}").register(self)

    def field(self, name, default, check):
        """Give every todo a field; `check(value)` returns it clean or raises `Refused`."""
        self._fields[name] = (check, default)

    def route(self, method, path):
        """Decorate the function that answers; `{id}` in a path becomes an argument."""

        def add(answer):
            self._routes.append((method, path.split("/"), answer))
            return answer

        return add

    def answer(self, method, path, query, body):
        """Status, content type and bytes for one request."""
        try:
            with self._lock:
                status, result = self._find(method, path)(query, body)
        except Refused as refused:
            status, result = refused.status, {"error": str(refused)}
        if isinstance(result, Text):
            return status, result.kind, result.content.encode()
        return status, "application/json", json.dumps(result, ensure_ascii=False).encode()

    def todo(self, number):
        """The todo of that id, given as text in a path."""
        found = self.store.get(int(number)) if number.isdecimal() else None
        if found is None:
            raise Refused(404, f"there is no todo {number}")
        return found

    def clean(self, body, *, complete):
        """The fields of a todo from a request; `complete` adds the defaults."""
        if not isinstance(body, dict):
            raise Refused(400, "a todo is a JSON object")
        for name in body:
            if name not in self._fields:
                raise Refused(400, f"a todo has no field {name!r}")
        if complete:
            body = {name: default for name, (_, default) in self._fields.items()} | body
        return {name: self._fields[name][0](value) for name, value in body.items()}

    def _find(self, method, path):
        known = False
        for its_method, pattern, answer in self._routes:
            arguments = match(pattern, path.split("/"))
            if arguments is not None:
                known = True
                if its_method == method:
                    return lambda query, body: answer(query, body, **arguments)
        raise Refused(405, f"{path} does not know {method}") if known else Refused(404, path)

    def _add_routes(self):
        @self.route("GET", "/api/todos")
        def list_todos(query, body):
            return 200, self.store.all()

        @self.route("POST", "/api/todos")
        def add_todo(query, body):
            return 201, self.store.add(self.clean(body, complete=True))

        @self.route("PATCH", "/api/todos/{number}")
        def change_todo(query, body, number):
            todo = self.todo(number)
            return 200, self.store.change(todo["id"], self.clean(body, complete=False))

        @self.route("DELETE", "/api/todos/{number}")
        def remove_todo(query, body, number):
            removed = self.store.remove(self.todo(number)["id"])
            for listener in self.on_remove:
                listener(removed)
            return 200, removed


def match(pattern, parts):
    """The arguments of a path, None where it is another one."""
    if len(pattern) != len(parts):
        return None
    arguments = {}
    for expected, given in zip(pattern, parts, strict=True):
        if expected.startswith("{"):
            arguments[expected.strip("{}")] = given
        elif expected != given:
            return None
    return arguments


def title(value):
    if not isinstance(value, str) or not value.strip():
        raise Refused(400, "a todo needs a title")
    return value.strip()


def truth(value):
    if not isinstance(value, bool):
        raise Refused(400, "done is true or false")
    return value
