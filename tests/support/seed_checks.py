"""The verification commands of the seed report, word for word, on a connection of their own."""

import contextlib
import sqlite3
from pathlib import Path

ACTIVE = "SELECT agent_id, api_port, web_port FROM agent_heartbeats WHERE status = 'ACTIVE'"
DUPLICATES = "SELECT api_port, COUNT(*) FROM agent_heartbeats GROUP BY api_port HAVING COUNT(*) > 1"
UNRELEASED = (
    "SELECT COUNT(*) FROM agent_heartbeats WHERE status = 'COMPLETED' "
    "AND (api_port IS NOT NULL OR web_port IS NOT NULL)"
)


def violations(database: Path) -> list[str]:
    """What the seed's checks object to, nothing when all hold."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("BEGIN")
        active = connection.execute(ACTIVE).fetchall()
        duplicates = connection.execute(DUPLICATES).fetchall()
        unreleased = connection.execute(UNRELEASED).fetchone()[0]
    found = [f"port {port} stands there {count} times" for port, count in duplicates]
    found += [f"{agent} has no pair" for agent, api, web in active if not (api and web)]
    return found + ([f"{unreleased} completed agents keep ports"] if unreleased else [])
