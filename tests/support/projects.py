"""A real project with a program of the test's as its backend, and an orchestrator on it."""

import contextlib
import os
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from autocoder.core.composition import join_engine, open_controlled, open_engine
from autocoder.core.control import TcpWay
from autocoder.core.engine import Engine
from autocoder.core.models import Snapshot
from autocoder.core.orchestrator import Orchestrator
from autocoder.core.settings import Settings, load_settings
from autocoder.core.store import FeatureDraft, ProjectStore
from support.repositories import make_repository
from support.waiting import wait_until

SETTINGS = """\
backend = "program"
parallel = {parallel}
fence = "off"
tick_s = 0.1
ledger_url = "sqlite:///{ledger}"
[ports]
api = [[{api}, {web}]]
web = [[{web}, {end}]]
cooldown_s = 0
auto_expand = false
[limits]
retry_s = 0.1
min_free_mib = 0
stop_grace_s = 1
[backends.program]
command = ["{python}", "-I", "-S", "{script}"]
"""

COMMITS = """\
import os, pathlib, subprocess
name = os.environ["AUTOCODER_AGENT_ID"]
pathlib.Path(name).write_text(name)
for command in (["add", "--all"], ["commit", "-qm", name]):
    subprocess.run(["git", *command], check=True)
"""
"""A program that finishes its feature at once."""

WAITS = """\
import time
print("at work", flush=True)
time.sleep(600)
"""
"""A program that works until it is ended."""


class Project:
    """A repository with settings, backlog and a ledger of its own below one folder."""

    def __init__(
        self,
        folder: Path,
        ports: range,
        program: str = WAITS,
        *,
        features: int = 1,
        parallel: int = 3,
        more: str = "",
        files: Mapping[str, str] | None = None,
    ) -> None:
        """`more` is added to the settings file; it may begin with top-level keys' tables only."""
        script = folder / "program.py"
        script.write_text(textwrap.dedent(program))
        half = len(ports) // 2
        text = SETTINGS.format(
            parallel=parallel,
            ledger=folder / "ledger.db",
            api=ports[0],
            web=ports[half],
            end=ports[-1] + 1,
            python=sys.executable,
            script=script,
        )
        self.folder = make_repository(
            folder / "project", {"autocoder.toml": text + more, "README": "text\n", **(files or {})}
        )
        if features:
            with contextlib.closing(ProjectStore(self.database)) as store:
                store.add_features(
                    [FeatureDraft(name=f"Feature {number}") for number in range(1, features + 1)]
                )

    @property
    def database(self) -> Path:
        return self.folder / "agent_system.db"

    def settings(self, **cli: object) -> Settings:
        return load_settings(self.folder, environ=os.environ, cli=cli)

    def open(self, **cli: object) -> Orchestrator:
        return open_engine(self.folder, self.settings(**cli))

    def open_served(self, tcp: TcpWay | None = None, **cli: object) -> Engine:
        """The orchestrator with its control socket."""
        return open_controlled(self.folder, self.settings(**cli), tcp)

    def join(self, **cli: object) -> Engine:
        """What a panel gets: the orchestrator, or a connection to it."""
        return join_engine(self.folder, self.settings(**cli))


class Running:
    """An engine in a thread of its own, and the latest thing it published."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.snapshot: Snapshot | None = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def wait_for(self, condition: Callable[[Snapshot], object], seconds: float = 20.0) -> Snapshot:
        """The first snapshot seen for which `condition` holds."""

        def seen() -> Snapshot | None:
            if self.failure is not None:
                raise self.failure
            snapshot = self.snapshot
            return snapshot if snapshot is not None and condition(snapshot) else None

        try:
            found = wait_until(seen, seconds=seconds, what="a snapshot")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{_told(self.snapshot)}") from None
        assert found is not None
        return found

    def stop(self) -> None:
        """End the engine; its agents go on."""
        self.engine.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            self.engine.run(self._publish)
        except BaseException as failure:  # noqa: BLE001  # the test's thread shows it
            self.failure = failure

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


@contextlib.contextmanager
def running(engine: Engine) -> Iterator[Running]:
    """The engine at work for the block."""
    run = Running(engine)
    try:
        yield run
    finally:
        run.stop()


def _told(snapshot: Snapshot | None) -> str:
    """The last that an engine said, for whoever waited in vain."""
    if snapshot is None:
        return "it has published nothing"
    agents = [
        f"{agent.agent_id} {agent.state} {agent.last_line or agent.reason}"
        for agent in snapshot.agents
    ]
    features = [
        f"feature {feature.id} {feature.status} {feature.review_status} "
        f"after {feature.attempts} attempts {feature.last_error}"
        for feature in snapshot.backlog
    ]
    said = [f"{notice.severity} {notice.subject} {notice.text}" for notice in snapshot.notices]
    return "\n".join((*agents, *features, *said[-20:]))
