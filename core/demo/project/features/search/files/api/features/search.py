"""Find todos by the beginning of a tag."""

from api.app import Refused


def register(app):
    @app.route("GET", "/api/search")
    def search(query, body):
        wanted = query.get("tag", "").strip().lower()
        if not wanted:
            raise Refused(400, "say which tag: /api/search?tag=...")
        return 200, [
            todo for todo in app.store.all() if any(tag.startswith(wanted) for tag in todo["tags"])
        ]
