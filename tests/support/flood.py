"""Many requests at a steady rate, from a process of their own so that they cost the server
nothing but their answers."""

import http.client
import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from autocoder.core.client import connect

PATHS = ("/api/status", "/api/agents", "/api/features", "/api/ports", "/api/events?limit=5")


@dataclass(frozen=True, slots=True)
class Flood:
    statuses: dict[str, int]
    rate: float
    """Requests a second that were really sent."""
    p50: float
    p99: float
    """Seconds until an answer was read."""


def flood(project: Path, per_second: float, seconds: float) -> Flood:
    """Ask over the control socket, and wait until all is answered."""
    ran = subprocess.run(
        [sys.executable, __file__, str(project), str(per_second), str(seconds)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return Flood(**json.loads(ran.stdout))


def _ask(project: Path, per_second: float, seconds: float) -> dict[str, object]:
    latencies, statuses = [], Counter[int]()
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connect(project, 60)
    with closing(connection):
        began = time.monotonic()
        for number in range(int(per_second * seconds)):
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))
            asked = time.monotonic()
            connection.request("GET", PATHS[number % len(PATHS)])
            response = connection.getresponse()
            response.read()
            latencies.append(time.monotonic() - asked)
            statuses[response.status] += 1
        rate = len(latencies) / (time.monotonic() - began)
    latencies.sort()
    return {
        "statuses": statuses,
        "rate": rate,
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[int(len(latencies) * 0.99)],
    }


if __name__ == "__main__":
    folder, rate, length = sys.argv[1:]
    sys.stdout.write(json.dumps(_ask(Path(folder), float(rate), float(length))))
