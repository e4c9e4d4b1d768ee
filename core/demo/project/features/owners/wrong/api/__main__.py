"""Run the API: `python -m api`."""

import sys
from http.server import ThreadingHTTPServer

from api.app import App
from api.server import make_server

PORT = 5000


def main():
    # Fail rather than take over a port that someone else has already bound.
    ThreadingHTTPServer.allow_reuse_address = False
    try:
        server = make_server(App(), PORT)
    except OSError as error:
        sys.exit(f"api: cannot listen on port {PORT}: {error.strerror}")
    print(f"api: listening on port {PORT}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
