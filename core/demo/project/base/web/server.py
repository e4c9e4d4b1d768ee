"""Serves the files of the page, and tells it in /config.json where its API is.

The page asks instead of knowing: the same files serve every agent, each with
ports of its own. Features are found by listing `web/features`.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}


def make_server(port, api_url):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = urlsplit(self.path).path
            if path == "/config.json":
                return self.reply(200, "application/json", json.dumps(config(api_url)).encode())
            file = files().get("/index.html" if path == "/" else path)
            if file is None:
                return self.reply(404, "text/plain", b"not here")
            return self.reply(200, KINDS[file.suffix], file.read_bytes())

        def reply(self, status, kind, content):
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Agent", os.environ.get("AUTOCODER_AGENT_ID", ""))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Say nothing: the log belongs to what matters."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def config(api_url):
    """What the page must know before its first request."""
    added = sorted(path for path in files() if path.startswith("/features/"))
    return {
        "api": api_url,
        "agent": os.environ.get("AUTOCODER_AGENT_ID", ""),
        "modules": [path for path in added if path.endswith(".js")],
        "styles": [path for path in added if path.endswith(".css")],
    }


def files():
    """Every file that may be asked for, by its path: what is not listed does not exist."""
    found = {}
    for folder, prefix in ((HERE / "static", "/"), (HERE / "features", "/features/")):
        for path in folder.iterdir():
            if path.suffix in KINDS:
                found[prefix + path.name] = path
    return found
