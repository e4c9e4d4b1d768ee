"""A pasted list becomes todos, one a line."""

import re

from api.app import Refused

LINE = re.compile(r"\s*(?:[-*]\s+)?(?:\[(?P<mark>[ xX])\]\s*)?(?P<title>.*\S)\s*")


def register(app):
    @app.route("POST", "/api/import")
    def import_text(query, body):
        text = body.get("text") if isinstance(body, dict) else None
        lines = [line for line in map(LINE.fullmatch, str(text or "").splitlines()) if line]
        if not lines:
            raise Refused(400, "there is no line to import")
        todos = [{"title": line["title"], "done": (line["mark"] or " ") in "xX"} for line in lines]
        return 201, [app.store.add(app.clean(todo, complete=True)) for todo in todos]
