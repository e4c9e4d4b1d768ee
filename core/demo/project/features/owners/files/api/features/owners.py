"""Todos can have an owner."""

from api.app import Refused


def register(app):
    app.field("owner", "", owner)

    @app.route("GET", "/api/owners")
    def list_owners(query, body):
        return 200, sorted({todo["owner"] for todo in app.store.all()} - {""})


def owner(value):
    if not isinstance(value, str) or len(value) > 60:
        raise Refused(400, "an owner is a name")
    return value.strip()
