"""Todos are of high, normal or low priority."""

from api.app import Refused

PRIORITIES = ("high", "normal", "low")


def register(app):
    app.field("priority", "normal", priority)

    @app.route("GET", "/api/urgent")
    def by_priority(query, body):
        return 200, sorted(app.store.all(), key=lambda todo: PRIORITIES.index(todo["priority"]))


def priority(value):
    if value not in PRIORITIES:
        raise Refused(400, f"a priority is one of {', '.join(PRIORITIES)}")
    return value
