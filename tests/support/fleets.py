"""Whole orchestrators on real repositories, their agents running programs of the test's."""

import contextlib
import json
import os
import signal
import sqlite3
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from autocoder.core.commands import Command
from autocoder.core.composition import open_engine
from autocoder.core.launcher import run_folder
from autocoder.core.models import Agent, Feature, Notice, PortRange, RunReport, Snapshot
from autocoder.core.orchestrator import Orchestrator
from autocoder.core.ports import live_workers
from autocoder.core.probe import local_kernel
from autocoder.core.settings import CommandBackend, LimitSettings, PortSettings, Settings
from autocoder.core.store import FeatureDraft, ProjectStore
from support import oracle, seed_checks
from support.repositories import git, make_repository
from support.waiting import wait_until

AGENT = Path(__file__).with_name("agent_program.py")
WAITS = "import signal; signal.pause()"


TOLD = """
import os, signal
while not os.path.exists(f"{folder}/told"):
    signal.sigtimedwait([], 0.02)
"""
"""Waits until `Project.tell_all`; the rest of the program follows."""


class Project:
    """A repository with a backlog; every file of it below one folder of the test's."""

    def __init__(self, folder: Path, ports: range, **changes: Any) -> None:
        self.dir = make_repository(folder / "project")
        self.database = self.dir / "agent_system.db"
        self.ledger = folder / "ledger.db"
        self.programs = folder / "programs"
        self.programs.mkdir()
        half = len(ports) // 2
        command = (sys.executable, "-I", "-S", str(AGENT), str(self.programs), "{feature_id}")
        self.settings = replace(
            Settings(),
            parallel=4,
            backend="test",
            backends={"test": CommandBackend(command=command)},
            fence="off",
            tick_s=0.2,
            ledger_url=f"sqlite:///{self.ledger}",
            ports=PortSettings(
                api=(PortRange(ports[0], ports[half]),),
                web=(PortRange(ports[half], ports[-1] + 1),),
                cooldown_s=0.0,
                auto_expand=False,
            ),
            limits=LimitSettings(min_free_mib=0, retry_s=0.1, stop_grace_s=1.0),
        )
        self.settings = replace(self.settings, **changes)

    def limit(self, **changes: Any) -> None:
        self.settings = replace(self.settings, limits=replace(self.settings.limits, **changes))

    def write_settings(self) -> None:
        """The same settings as a file, for programs that are given nothing but the folder."""
        api, web = self.settings.ports.api[0], self.settings.ports.web[0]
        command = json.dumps(list(self.settings.backends["test"].command))
        limits = self.settings.limits
        (self.dir / "autocoder.toml").write_text(
            f'parallel = {self.settings.parallel}\nbackend = "test"\nfence = "off"\n'
            f'ledger_url = "{self.settings.ledger_url}"\n'
            f"[ports]\napi = [[{api.start}, {api.end}]]\nweb = [[{web.start}, {web.end}]]\n"
            f"cooldown_s = 0.0\nauto_expand = false\n[backends.test]\ncommand = {command}\n"
            f"[limits]\nmin_free_mib = 0\nretry_s = {limits.retry_s}\n"
            f"stop_grace_s = {limits.stop_grace_s}\n"
        )

    def add(self, *programs: str, **draft: Any) -> list[int]:
        """One feature per program; an empty program commits a file and ends."""
        store = ProjectStore(self.database)
        try:
            drafts = [FeatureDraft(name=f"Feature {n}", **draft) for n, _ in enumerate(programs)]
            ids = [feature.id for feature in store.add_features(drafts)]
        finally:
            store.close()
        for feature_id, program in zip(ids, programs, strict=True):
            self.write_program(feature_id, program)
        return ids

    def write_program(self, feature_id: int, program: str) -> None:
        path = self.programs / f"{feature_id}.py"
        if program:
            path.write_text(textwrap.dedent(program))
        else:
            path.unlink(missing_ok=True)

    def query(self, sql: str, database: Path | None = None) -> list[tuple[Any, ...]]:
        # Not read-only: a killed writer leaves a journal that the next reader rolls back.
        uri = f"file:{database or self.database}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def execute(self, sql: str) -> None:
        """Change the project's database behind everybody's back."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection:
            connection.execute(sql)
            connection.commit()

    def tell_all(self) -> None:
        """Let every agent go on that waits in `TOLD`."""
        (self.programs / "told").touch()

    def commits(self) -> set[str]:
        """Subjects of base's commits."""
        return set(git(self.dir, "log", "--format=%s", "main").splitlines())

    def run_folder(self, agent_id: str) -> Path:
        return run_folder(self.dir, agent_id)

    def processes(self, agent_id: str = "") -> set[int]:
        """Live processes of the project's agents, or of one, by what they were started with."""
        below = str(self.run_folder(agent_id) if agent_id else self.dir / ".autocoder" / "agents")
        return {
            pid
            for pid, fact in oracle.processes().items()
            if fact.state not in "ZX"
            and oracle.environment(pid).get("AUTOCODER_RUN_FOLDER", "").startswith(below)
        }

    def assert_nothing_is_left_of(self, agent: Agent) -> None:
        """No process of an agent that has ended lives, and nothing listens on its pair."""
        assert not self.processes(agent.agent_id)
        assert not {agent.api_port, agent.web_port} & set(oracle.listeners())

    def faults(self) -> list[str]:
        """What is not so and must always be: as the database files and /proc tell it."""
        faults = seed_checks.violations(self.database)
        leased: dict[int, str] = {}
        for port, holder, epoch in self.query(
            "SELECT port, holder, epoch FROM port_leases WHERE state = 'leased'", self.ledger
        ):
            if port in leased:
                faults.append(f"{port} is leased to {leased[port]} and {holder}")
            leased[port] = f"{holder} {epoch}"
        pairs: dict[str, set[str]] = {}
        for pid in self.processes():
            environment = oracle.environment(pid)
            agent = environment.get("AUTOCODER_AGENT_ID", "")
            pairs.setdefault(environment.get("AUTOCODER_API_PORT", ""), set()).add(agent)
        faults += [f"{a} live on port {p}" for p, a in pairs.items() if len(a) > 1]
        return faults

    def leftovers(self) -> list[str]:
        """What must not be there once every feature is done and nothing runs."""
        worktrees = git(self.dir, "worktree", "list", "--porcelain").count("worktree ")
        branches = git(self.dir, "branch", "--list", "feat*").split()
        left = [f"process {pid}" for pid in self.processes()]
        left += [f"branch {branch}" for branch in branches]
        left += [f"{worktrees - 1} worktrees"] if worktrees > 1 else []
        left += [str(row) for row in self.query("SELECT agent_id, pid FROM agent_heartbeats")]
        left += [
            f"lease {row}"
            for row in self.query(
                "SELECT port, state, holder FROM port_leases WHERE state <> 'cooling'", self.ledger
            )
        ]
        return left

    def end_everything(self) -> list[int]:
        """Whatever a test left running; the pids of its workers."""
        ended = []
        for worker in live_workers(local_kernel()):
            if worker.project == str(self.dir):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGUSR1)
                    ended.append(worker.pid)
        return ended


class Running:
    """An orchestrator in a thread, and what it has published."""

    def __init__(self, engine: Orchestrator) -> None:
        self.engine = engine
        self.snapshot: Snapshot | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="orchestrator")
        self._done = self._thread.submit(engine.run_to_report, self._publish)
        self._thread.shutdown(wait=False)

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def submit(self, command: Command) -> None:
        self.engine.submit(command)

    def wait(
        self, condition: Callable[[Snapshot], Any], *, seconds: float = 20.0, what: str = ""
    ) -> Snapshot:
        """The first snapshot that fulfils the condition."""

        def fulfilled() -> Snapshot | None:
            snapshot = self.snapshot
            if self._done.done():
                self._done.result()
            return snapshot if snapshot is not None and condition(snapshot) else None

        try:
            found = wait_until(fulfilled, seconds=seconds, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}; last seen: {self.told()}") from None
        assert found is not None
        return found

    def told(self) -> str:
        if self.snapshot is None:
            return "nothing"
        agents = [f"{a.agent_id} {a.state} {a.reason}" for a in self.snapshot.agents]
        return "\n".join(agents + [f"{n.subject}: {n.text}" for n in self.snapshot.notices])

    def agent_of(self, feature_id: int, state: str = "ACTIVE") -> Agent:
        """The feature's latest agent, once it is in that state."""

        def latest(snapshot: Snapshot) -> Agent | None:
            found = [agent for agent in snapshot.agents if agent.feature_id == feature_id]
            return found[0] if found and found[0].state == state else None

        agent = latest(self.wait(latest, what=f"an agent of feature {feature_id} is {state}"))
        assert agent is not None
        return agent

    def ended(self, agent_id: str) -> Agent:
        """The agent, once it has ended."""

        def find(snapshot: Snapshot) -> Agent | None:
            found = [agent for agent in snapshot.agents if agent.agent_id == agent_id]
            return found[0] if found and not found[0].live else None

        agent = find(self.wait(find, what=f"{agent_id} ends"))
        assert agent is not None
        return agent

    def notice(self, *words: str) -> Notice:
        """The first notice with all these words, once it is said."""

        def find(snapshot: Snapshot) -> Notice | None:
            for notice in snapshot.notices:
                if all(word in f"{notice.subject}: {notice.text}" for word in words):
                    return notice
            return None

        notice = find(self.wait(find, what=f"a notice with {words}"))
        assert notice is not None
        return notice

    def feature(self, feature_id: int) -> Feature:
        assert self.snapshot is not None
        return next(f for f in self.snapshot.backlog if f.id == feature_id)

    def leave(self) -> None:
        """As a panel that quits: agents go on."""
        self.engine.stop()
        self.report()

    def report(self, seconds: float = 30.0) -> RunReport:
        """What the run did, once it has ended."""
        return self._done.result(seconds)


@contextlib.contextmanager
def running(project: Project) -> Iterator[Running]:
    """An orchestrator that works on the project while the block runs; no agent outlives it."""
    run = Running(open_engine(project.dir, project.settings))
    try:
        yield run
    finally:
        # First the orchestrator: it would start others for those that are ended.
        run.leave()
        pids = project.end_everything()
        for pid in pids:
            wait_until(lambda pid=pid: _is_gone(pid), what=f"worker {pid} ends")  # type: ignore[misc]


def _is_gone(pid: int) -> bool:
    try:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True
