"""The look of the page, as last chosen."""

from api.app import Refused

THEMES = ("light", "dark")


def register(app):
    chosen = {"theme": "light"}

    @app.route("GET", "/api/theme")
    def get_theme(query, body):
        return 200, chosen

    @app.route("PUT", "/api/theme")
    def set_theme(query, body):
        theme = body.get("theme") if isinstance(body, dict) else None
        if theme not in THEMES:
            raise Refused(400, f"a theme is one of {', '.join(THEMES)}")
        chosen["theme"] = theme
        return 200, chosen
