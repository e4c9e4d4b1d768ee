"""What is really so: read from /proc and the database files, without the program's own code.

It must not import the package it judges.
"""

import contextlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

BAD_PORTS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669}
    | {6679, 6697, 10080}
)
TRANSITIONAL_S = 15.0


@dataclass(frozen=True)
class ProcessFact:
    pid: int
    ppid: int
    start: int
    state: str


@dataclass(frozen=True)
class LeaseFact:
    port: int
    role: str
    state: str
    holder: str
    project: str
    pid: int | None
    pid_start: int | None
    epoch: int
    changed_at: float


def processes() -> dict[int, ProcessFact]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                text = (folder / "stat").read_text("utf-8", "replace")
                rest = text[text.rindex(")") + 2 :].split()
                pid = int(folder.name)
                found[pid] = ProcessFact(pid, int(rest[1]), int(rest[19]), rest[0])
    return found


def environment(pid: int) -> dict[str, str]:
    """What a process was started with; empty when it has gone."""
    with contextlib.suppress(OSError):
        raw = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")
        return dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)
    return {}


def is_alive(pid: int | None, start: int | None) -> bool:
    fact = processes().get(pid) if pid is not None else None
    return fact is not None and fact.state not in "ZX" and start in (None, fact.start)


def agent_of(pid: int) -> tuple[str, str] | None:
    """Project and agent that a process was started for; ids repeat from project to project."""
    started = environment(pid)
    project, found, _ = started.get("AUTOCODER_RUN_FOLDER", "").partition("/.autocoder/agents/")
    return (project, started.get("AUTOCODER_AGENT_ID", "")) if found else None


def listeners() -> dict[int, set[int]]:
    """Every listening TCP port with the inodes of its sockets."""
    found: dict[int, set[int]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    port = int(fields[1].rsplit(":", 1)[1], 16)
                    found.setdefault(port, set()).add(int(fields[9]))
    return found


def owners(inodes: Iterable[int]) -> dict[int, set[int]]:
    """Inode of a socket to the pids that have it open."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, set[int]] = {}
    for pid in processes():
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inode = wanted.get(str(link.readlink()))
                    if inode is not None:
                        found.setdefault(inode, set()).add(pid)
    return found


def leases(ledger: Path) -> list[LeaseFact]:
    return [
        LeaseFact(*row)
        for row in _query(
            ledger,
            "SELECT port, role, state, holder, project, pid, pid_start, epoch, changed_at"
            " FROM port_leases ORDER BY port",
        )
    ]


def agent_rows(project_database: Path) -> list[tuple[str, int | None, int | None, int | None]]:
    """Agent id, pid and pair of every row of the seed's table."""
    query = "SELECT agent_id, pid, api_port, web_port FROM agent_heartbeats"
    return [(str(a), b, c, d) for a, b, c, d in _query(project_database, query)]


def has_table(path: Path, name: str) -> bool:
    """Whether the database is there and as far as that."""
    sql = f"SELECT 1 FROM sqlite_master WHERE name = '{name}'"
    return path.is_file() and bool(_query(path, sql))


def _query(path: Path, sql: str) -> list[tuple]:  # type: ignore[type-arg]
    """Read without ever writing, not even where a killed writer's journal is to be rolled back."""
    while True:
        try:
            return _answers(f"file:{quote(str(path))}?mode=ro", sql)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(FileNotFoundError):
            stamps = _stamps(path)
            for suffix in ("", "-journal"):
                shutil.copy(path.with_name(path.name + suffix), Path(folder, "copy" + suffix))
            if _stamps(path) == stamps:
                return _answers(f"file:{folder}/copy", sql)


def _answers(uri: str, sql: str) -> list[tuple]:  # type: ignore[type-arg]
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as file:
        return file.execute(sql).fetchall()


def _stamps(path: Path) -> list[int]:
    journal = path.with_name(f"{path.name}-journal")
    return [file.stat().st_mtime_ns for file in (path, journal)]


# ---------------------------------------------------------------------- 4-guarantees


def assert_no_port_has_two_holders(ledger: Path, projects: Iterable[Path] = ()) -> None:
    """I1, as the ledger and the rows of every project tell it.

    Files are read one after another, so only agents that still live, and still have the
    port when all is read again, share one.
    """
    held = Counter(lease.port for lease in leases(ledger))
    assert max(held.values(), default=1) == 1, f"leased twice: {held}"
    databases = list(projects)
    twice = _shared_ports(databases) & _shared_ports(databases)
    assert not twice, f"two live agents share: {sorted(twice)}"


def _shared_ports(projects: Iterable[Path]) -> set[tuple[int, frozenset[tuple[Path, str, int]]]]:
    """Ports of more than one live agent, each with these agents."""
    agents: dict[int, set[tuple[Path, str, int]]] = {}
    for project in projects:
        for agent, pid, *pair in agent_rows(project):
            if pid is not None and is_alive(pid, None):
                for port in pair:
                    if port is not None:
                        agents.setdefault(port, set()).add((project, agent, pid))
    return {(port, frozenset(who)) for port, who in agents.items() if len(who) > 1}


def assert_listeners_have_their_lease(ledger: Path, ports: Collection[int]) -> None:
    """I1 and I2 as the sockets tell it: an agent listens on ports of the pools that are its own."""
    holders = _holders(ledger)
    sockets = {port: inodes for port, inodes in listeners().items() if port in ports}
    found = owners(inode for inodes in sockets.values() for inode in inodes)
    agents = {
        (port, agent)
        for port, inodes in sockets.items()
        for inode in inodes
        for pid in found.get(inode, ())
        if (agent := agent_of(pid)) is not None
    }
    # Read again: a lease may have been granted between the first look and the sockets.
    strays = agents - holders - _holders(ledger)
    assert not strays, f"they listen without a lease: {strays}"


def _holders(ledger: Path) -> set[tuple[int, tuple[str, str]]]:
    return {(lease.port, (lease.project, lease.holder)) for lease in leases(ledger)}


def assert_leases_have_live_holders(ledger: Path, now: float) -> None:
    """I3: held by the living, or on its way out for less than 15 s."""
    for lease in leases(ledger):
        if lease.state == "leased" and lease.pid is not None:
            assert is_alive(lease.pid, lease.pid_start), f"held by the dead: {lease}"
        if lease.state == "releasing" and not is_alive(lease.pid, lease.pid_start):
            assert now - lease.changed_at < TRANSITIONAL_S, f"not let go of: {lease}"


def assert_pairs_are_whole(ledger: Path) -> None:
    """I4: each grant is one api and one web port."""
    grants: dict[tuple[str, str, int], list[str]] = {}
    for lease in leases(ledger):
        if lease.state == "leased":
            grants.setdefault((lease.project, lease.holder, lease.epoch), []).append(lease.role)
    for grant, roles in grants.items():
        assert sorted(roles) == ["api", "web"], f"{grant} holds {roles}"
    holders = Counter((project, holder) for project, holder, _ in grants)
    assert max(holders.values(), default=1) == 1, f"two pairs each: {holders}"


def assert_only_permitted_ports(ledger: Path, pools: Iterable[range], ui_port: int) -> None:
    """I6."""
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    spans = list(pools)
    for lease in leases(ledger):
        assert any(lease.port in span for span in spans), f"outside the pools: {lease}"
        assert lease.port not in BAD_PORTS, f"refused by browsers: {lease}"
        assert lease.port != ui_port, f"the panel's own: {lease}"
        assert not int(low) <= lease.port <= int(high), f"ephemeral: {lease}"


def assert_the_seeds_checks_hold(project_database: Path) -> None:
    """I10: the predecessor's manual verification, word for word, less its program `ps`."""
    twice = _query(
        project_database,
        "SELECT api_port, COUNT(*) FROM agent_heartbeats GROUP BY api_port HAVING COUNT(*) > 1",
    )
    assert not twice, f"duplicate ports: {twice}"
    kept = _query(
        project_database,
        "SELECT COUNT(*) FROM agent_heartbeats WHERE status = 'COMPLETED'"
        " AND (api_port IS NOT NULL OR web_port IS NOT NULL)",
    )
    assert kept == [(0,)], f"finished agents keep ports: {kept}"
    active = _query(
        project_database,
        "SELECT pid, api_port, web_port FROM agent_heartbeats WHERE status = 'ACTIVE'",
    )
    for pid, api_port, web_port in active:
        shown = _arguments(pid)
        if "agent_worker.py" in shown:
            assert f"--api-port {api_port} --web-port {web_port}" in shown


def _arguments(pid: int | None) -> str:
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
        )
    return ""
