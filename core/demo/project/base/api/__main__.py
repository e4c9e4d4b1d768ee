"""Run the API: `AUTOCODER_API_PORT=... python -m api`."""

import os
import sys

from api.app import App
from api.server import make_server
from ports import API_PORT, WEB_PORT, port_from


def main():
    port = port_from(API_PORT)
    pages = os.environ.get(WEB_PORT, "")
    try:
        server = make_server(App(), port, page_port=pages)
    except OSError as error:
        sys.exit(f"api: cannot listen on port {port}: {error.strerror}")
    print(f"api: listening on http://localhost:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
