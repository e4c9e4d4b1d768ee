"""The list as a file that a spreadsheet opens."""

import csv
import io

from api.app import Text


def register(app):
    @app.route("GET", "/api/export.csv")
    def export(query, body):
        todos = app.store.all()
        columns = list(dict.fromkeys(name for todo in todos for name in todo)) or ["id"]
        out = io.StringIO()
        rows = csv.DictWriter(out, columns, lineterminator="\r\n")
        rows.writeheader()
        rows.writerows({name: cell(value) for name, value in todo.items()} for todo in todos)
        return 200, Text(out.getvalue(), "text/csv")


def cell(value):
    text = " ".join(value) if isinstance(value, list) else "" if value is None else str(value)
    # A spreadsheet would run a cell that begins like a formula.
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text
