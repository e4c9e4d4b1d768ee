"""The keys of the page, in one place for the page and its help."""

KEYS = {
    "n": "new todo",
    "j": "next",
    "k": "previous",
    "x": "done or not",
    "d": "delete",
    "?": "show the keys",
}


def register(app):
    @app.route("GET", "/api/shortcuts")
    def list_shortcuts(query, body):
        return 200, KEYS
