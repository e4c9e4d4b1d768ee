"""What a process asks about its own ports: an agent's servers, or the panel's own.

Pools belong to `settings`. Unlike the predecessor's module of this name a bad
value is an error, not a silent default: the wrong port serves the wrong app.
"""

import os

from autocoder.core.errors import UsageError

DEFAULT_API_PORT = 5000
DEFAULT_WEB_PORT = 5173
DEFAULT_UI_PORT = 8888


def get_api_port() -> int:
    """Port of this agent's API server."""
    return _port("AUTOCODER_API_PORT", DEFAULT_API_PORT)


def get_web_port() -> int:
    """Port of this agent's web server."""
    return _port("AUTOCODER_WEB_PORT", DEFAULT_WEB_PORT)


def get_vite_port() -> int:
    """The predecessor's name for the web port."""
    return get_web_port()


def get_ui_port() -> int:
    """Port of the panel's own server, never one of an agent's."""
    return _port("AUTOCODER_UI_PORT", DEFAULT_UI_PORT)


def get_api_base_url() -> str:
    return f"http://localhost:{get_api_port()}"


def get_web_base_url() -> str:
    return f"http://localhost:{get_web_port()}"


def get_ui_cors_origins() -> list[str]:
    """Origins a browser may call the panel's server from.

    `AUTOCODER_UI_ALLOWED_ORIGINS` (comma separated) replaces the default, which
    is the server itself and this agent's web server, by both names of loopback.
    """
    given = os.environ.get("AUTOCODER_UI_ALLOWED_ORIGINS", "")
    origins = [origin.strip() for origin in given.split(",") if origin.strip()]
    if origins:
        return origins
    return [
        f"http://{host}:{port}"
        for port in (get_ui_port(), get_web_port())
        for host in ("localhost", "127.0.0.1")
    ]


def _port(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or not 1024 <= int(value) <= 65535:
        raise UsageError(f"${variable} must be a port between 1024 and 65535, not {value!r}")
    return int(value)
