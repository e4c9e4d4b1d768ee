"""The todos, in memory: they last as long as the API runs."""

import itertools


class Store:
    def __init__(self):
        self._todos = {}
        self._ids = itertools.count(1)

    def all(self):
        return [dict(todo) for todo in self._todos.values()]

    def get(self, number):
        """The todo, None where there is none."""
        todo = self._todos.get(number)
        return None if todo is None else dict(todo)

    def add(self, values):
        number = next(self._ids)
        self._todos[number] = {"id": number, **values}
        return self.get(number)

    def change(self, number, values):
        self._todos[number].update(values)
        return self.get(number)

    def remove(self, number):
        return self._todos.pop(number)

    def restore(self, todo):
        """Put a removed todo back where it was."""
        self._todos[todo["id"]] = dict(todo)
        self._todos = dict(sorted(self._todos.items()))
