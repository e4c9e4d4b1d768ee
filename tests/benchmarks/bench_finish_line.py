"""Finishing: branches that are tested before they land, and the API while agents work.

`loop lag` is how long one pass of the orchestrator's loop takes: a key or a command
waits at most that long.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from autocoder.core.composition import open_engine
from autocoder.core.control import Controlled, ControlServer
from autocoder.core.models import Snapshot
from autocoder.core.orchestrator import Orchestrator
from autocoder.core.settings import Settings, load_settings
from autocoder.core.store import FeatureDraft, ProjectStore
from support.figures import Figure, figure
from support.flood import flood

FEATURES, AGENTS, TEST_S = 20, 5, 2
PER_SECOND = 200
FLOOD_S = float(os.environ.get("FLOOD_S", "60"))


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _verified(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        yield from _flooded(Path(folder))


def _verified(folder: Path) -> Iterator[Figure]:
    project, settings = _project(folder, f"sleep {TEST_S}")
    (project / "README").write_text("being edited\n")
    (project / "notes").write_text("not known to git\n")
    engine = open_engine(project, settings)
    before = _checkout(project)
    lags, computed = _timed(engine)
    report = engine.run_to_report(lambda _: None)
    if _checkout(project) != before:
        sys.exit("the user's checkout has changed")
    bare = FEATURES / AGENTS * TEST_S
    note = (
        f"{FEATURES} features, {AGENTS} agents, a test of {TEST_S} s each; tests alone {bare:g} s; "
        f"{report.features_done} done, the user's dirty checkout byte for byte as before"
    )
    yield figure("verified backlog", report.seconds, "s", note=note)
    yield from _lag("verifying", lags, computed)


def _flooded(folder: Path) -> Iterator[Figure]:
    project, settings = _project(folder, "true")
    engine = open_engine(project, settings)
    lags, computed = _timed(engine)
    controlled = Controlled(engine, ControlServer(project, settings, engine.submit))
    done = threading.Event()

    def publish(snapshot: Snapshot) -> None:
        if snapshot.features.done == FEATURES:
            done.set()

    running = threading.Thread(target=controlled.run, args=(publish,))
    running.start()
    try:
        told = flood(project, PER_SECOND, FLOOD_S)
        finished = done.wait(60)
    finally:
        controlled.stop()
        running.join()
    if not finished or set(told.statuses) != {"200"}:
        sys.exit(f"the backlog was not done, or requests failed: {told}")
    note = f"{told.rate:.0f} requests/s for {FLOOD_S:g} s over the socket; backlog done meanwhile"
    yield figure("API flood, answer p99", 1000 * told.p99, "ms", note=note)
    yield from _lag("flooded", lags, computed)


def _lag(doing: str, lags: list[float], computed: list[float]) -> Iterator[Figure]:
    note = f"of which computing {1000 * _p99(computed):.0f} ms; {len(lags)} passes"
    yield figure(f"loop lag p99 while {doing}", 1000 * _p99(lags), "ms", at_most=250, note=note)


def _project(folder: Path, command: str) -> tuple[Path, Settings]:
    project = folder / "plain"
    project.mkdir()
    (project / "README").write_text("a repository\n")
    (project / "autocoder.toml").write_text(f"[verify]\ncommands = ['{command}']\n")
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.invalid")
    for arguments in (("init", "-q", "-b", "work"), ("add", "."), ("commit", "-qm", "Begin")):
        subprocess.run(["git", *identity, *arguments], cwd=project, check=True)
    # The user works on a branch of their own, so base may move under them.
    for arguments in (("branch", "main"), ("branch", "-q", "-f", "main")):
        subprocess.run(["git", *arguments], cwd=project, check=True)
    with closing(ProjectStore(project / "agent_system.db")) as store:
        store.add_features([FeatureDraft(f"Feature {number}") for number in range(FEATURES)])
    settings = load_settings(
        project,
        environ=os.environ | {"AUTOCODER_LEDGER_URL": f"sqlite:///{folder}/ledger.db"},
        cli={
            "parallel": AGENTS,
            "base": "main",
            "scripted.step_s": 0,
            "stop_when_done": command != "true",
        },
    )
    return project, settings


def _timed(engine: Orchestrator) -> tuple[list[float], list[float]]:
    """How long each pass of the loop takes from now on, and how long it computes."""
    lags: list[float] = []
    computed: list[float] = []
    tick = engine.tick

    def timed() -> None:
        began, worked = time.monotonic(), time.thread_time()
        try:
            tick()
        finally:
            lags.append(time.monotonic() - began)
            computed.append(time.thread_time() - worked)

    engine.tick = timed  # type: ignore[method-assign]
    return lags, computed


def _checkout(project: Path) -> str:
    """Everything of the user's checkout, as one number, and what git says of it."""
    status = subprocess.run(
        ["git", "status", "--porcelain", "--branch"], cwd=project, capture_output=True, check=True
    ).stdout
    total = hashlib.sha256(status)
    for path in sorted(project.iterdir()):
        if path.is_file() and not path.name.startswith("agent_system.db"):
            total.update(path.read_bytes())
    return total.hexdigest()


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0
