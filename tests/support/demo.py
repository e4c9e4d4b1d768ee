"""The demo as a user runs it, with a ledger, ports and files of the test's own."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path


def demo_environment(folder: Path, ports: range, *, step_s: float) -> dict[str, str]:
    """Two pools of 40 ports each; everything kept lies below `folder`."""
    return os.environ | {
        "TMPDIR": str(folder),
        "AUTOCODER_LEDGER_URL": f"sqlite:///{folder}/ledger.db",
        "AUTOCODER_API_PORT_RANGE_START": str(ports[0]),
        "AUTOCODER_API_PORT_RANGE_END": str(ports[40]),
        "AUTOCODER_WEB_PORT_RANGE_START": str(ports[50]),
        "AUTOCODER_WEB_PORT_RANGE_END": str(ports[90]),
        "AUTOCODER_SCRIPTED_STEP_S": str(step_s),
        "AUTOCODER_LIMITS_RETRY_S": "0.2",
    }


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    """What another program would read from the database right now."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def processes_below(folder: Path) -> Iterator[str]:
    """Command lines of live processes that work, or keep their files, below the folder."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                cwd = (entry / "cwd").readlink()
                environment = (entry / "environ").read_bytes()
                if cwd.is_relative_to(folder) or f"{folder}/autocoder-demo".encode() in environment:
                    yield (entry / "cmdline").read_text().replace("\0", " ")


def listening_ports() -> set[int]:
    """Every port of the host that something listens on, as the kernel tells it."""
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listening = "0A"
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == listening}
