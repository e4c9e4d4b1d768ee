"""Run the page: `AUTOCODER_API_PORT=... AUTOCODER_WEB_PORT=... python -m web`."""

import os
import sys

from ports import API_PORT, WEB_PORT, port_from, url_of
from web.server import make_server


def main():
    port = port_from(WEB_PORT)
    api_url = os.environ.get("AUTOCODER_API_URL") or url_of(API_PORT)
    try:
        server = make_server(port, api_url)
    except OSError as error:
        sys.exit(f"web: cannot listen on port {port}: {error.strerror}")
    print(f"web: listening on http://localhost:{port}, the API is {api_url}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
