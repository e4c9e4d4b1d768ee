"""Where the servers get their ports from: the environment, and nowhere else."""

import os
import sys

API_PORT = "AUTOCODER_API_PORT"
WEB_PORT = "AUTOCODER_WEB_PORT"


def port_from(variable):
    """The port in `variable`; ends the program where there is none."""
    value = os.environ.get(variable, "")
    if not value.isdecimal() or not 0 < int(value) < 65536:
        given = f"is {value!r}, which is no port" if value else "is not set"
        sys.exit(f"${variable} {given}; give it the port to listen on")
    return int(value)


def url_of(variable):
    return f"http://localhost:{port_from(variable)}"
