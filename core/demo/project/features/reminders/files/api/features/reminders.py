"""What is overdue, and what is due soon."""

import datetime

from api.app import Refused

SOON = datetime.timedelta(days=2)


def register(app):
    @app.route("GET", "/api/reminders")
    def remind(query, body):
        try:
            today = datetime.date.fromisoformat(query["today"])
        except (KeyError, ValueError):
            raise Refused(400, "say which day it is: /api/reminders?today=2031-02-28") from None
        late, soon = [], []
        for todo in app.store.all():
            if todo["due"] and not todo["done"]:
                day = datetime.date.fromisoformat(todo["due"])
                if day < today:
                    late.append(todo)
                elif day <= today + SOON:
                    soon.append(todo)
        return 200, {"late": late, "soon": soon}
