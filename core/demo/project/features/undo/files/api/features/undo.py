"""Deleted todos come back, the last one first."""

from api.app import Refused

KEPT = 50


def register(app):
    removed = []

    def keep(todo):
        removed.append(todo)
        del removed[:-KEPT]

    app.on_remove.append(keep)

    @app.route("POST", "/api/undo")
    def undo(query, body):
        if not removed:
            raise Refused(409, "nothing has been deleted")
        todo = removed.pop()
        app.store.restore(todo)
        return 200, todo
