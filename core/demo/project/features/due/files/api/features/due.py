"""Todos can be due on a day."""

import datetime

from api.app import Refused


def register(app):
    app.field("due", None, day)

    @app.route("GET", "/api/due")
    def list_due(query, body):
        until = day(query.get("until")) or datetime.date.today().isoformat()
        due = [todo for todo in app.store.all() if todo["due"] and todo["due"] <= until]
        return 200, sorted(due, key=lambda todo: todo["due"])


def day(value):
    """An ISO date such as 2031-02-28; None and "" mean no date."""
    if value in (None, ""):
        return None
    try:
        return datetime.date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        raise Refused(400, f"{value!r} is no day such as 2031-02-28") from None
