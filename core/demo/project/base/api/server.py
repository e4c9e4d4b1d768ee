"""The API on a socket: HTTP in, `App.answer` in the middle, HTTP out."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

LONGEST_BODY = 1_000_000


def make_server(app, port, page_port=""):
    """A server that listens on this host only; pages of `page_port` may call it."""
    origins = {f"http://{host}:{page_port}" for host in ("localhost", "127.0.0.1")}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            url = urlsplit(self.path)
            try:
                body = self.read_body()
            except ValueError as error:
                self.close_connection = True
                reason = json.dumps({"error": f"the body is no JSON: {error}"}).encode()
                self.reply(400, "application/json", reason)
            else:
                self.reply(*app.answer(self.command, url.path, dict(parse_qsl(url.query)), body))

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def do_OPTIONS(self):
            self.reply(204, "text/plain", b"")

        def read_body(self):
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 <= length <= LONGEST_BODY:
                raise ValueError(f"{length} bytes")
            return json.loads(self.rfile.read(length)) if length else None

        def reply(self, status, kind, content):
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Agent", os.environ.get("AUTOCODER_AGENT_ID", ""))
            if self.headers.get("Origin") in origins:
                self.send_header("Access-Control-Allow-Origin", self.headers["Origin"])
                self.send_header("Access-Control-Allow-Headers", "Content-Type")
                self.send_header("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
                self.send_header("Vary", "Origin")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Say nothing: the log belongs to what matters."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
