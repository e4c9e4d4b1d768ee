"""Orchestrators as processes of their own, forked from one that has imported everything.

So that a test can kill two hundred of them: each start costs milliseconds. Run as
a program it reads commands from stdin, one JSON list a line.
"""

import base64
import contextlib
import ctypes
import itertools
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocoder.core.commands import Command
from autocoder.core.composition import open_engine
from autocoder.core.errors import AutocoderError
from autocoder.core.launcher import LocalLauncher
from autocoder.core.models import Snapshot
from autocoder.core.ports import PortAllocator
from autocoder.core.settings import Settings
from autocoder.core.store import ProjectStore
from autocoder.core.worktrees import Repository
from support.fleets import Project
from support.waiting import wait_until

PR_SET_PDEATHSIG = 1


@dataclass
class ForkedOrchestrator:
    """One that runs until it is killed or nothing is left to do."""

    zygote: "Zygote"
    pid: int
    snapshots: Path
    """Its latest snapshot, pickled."""

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit code, negative for a signal, once it has ended."""
        return self.zygote.wait(self.pid, seconds)

    @property
    def has_ended(self) -> bool:
        return self.pid in self.zygote.ended

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest it has published; None before the first."""
        try:
            found = pickle.loads(self.snapshots.read_bytes())
        except FileNotFoundError:
            return None
        assert isinstance(found, Snapshot)
        return found


class Zygote:
    """The process that forks; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._errors = (folder / "orchestrators.err").open("a+b")
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.ended: dict[int, int] = {}
        self._forked: list[int] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            kind, pid, *status = json.loads(line)
            if kind == "forked":
                self._forked.append(pid)
            else:
                self.ended[pid] = status[0]

    def start(
        self, project: Project, *commands: Command, crash: tuple[str, str, int] | None = None
    ) -> ForkedOrchestrator:
        """Fork an orchestrator that is given these commands first.

        With `crash` it kills itself there: see `CrashPoint`.
        """
        given = base64.b64encode(pickle.dumps((_plain(project.settings), commands))).decode()
        count = len(self._forked)
        snapshots = self._folder / f"snapshot-{count}"
        self._send([str(project.dir), given, str(snapshots), crash])
        wait_until(
            lambda: len(self._forked) > count or self._process.poll() is not None,
            seconds=60,
            what="the zygote forks",
        )
        assert len(self._forked) > count, self.errors()
        return ForkedOrchestrator(self, self._forked[count], snapshots)

    def wait(self, pid: int, seconds: float) -> int:
        wait_until(lambda: pid in self.ended, seconds=seconds, what=f"orchestrator {pid} ends")
        return self.ended[pid]

    def errors(self) -> str:
        """What the orchestrators said to stderr: nothing, unless one of them broke."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def close(self) -> None:
        for pid in set(self._forked) - self.ended.keys():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)
        assert self._process.stdout
        self._reader.join(5)
        self._process.stdout.close()
        self._errors.close()

    def _send(self, message: list[Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def zygote(folder: Path) -> Iterator[Zygote]:
    forking = Zygote(folder)
    try:
        yield forking
    finally:
        forking.close()


def _plain(settings: Settings) -> dict[str, Any]:
    """Settings as something that can be pickled: its mappings are read-only views."""
    return {
        name: dict(value) if name in ("backends", "origins") else value
        for name in settings.__slots__
        for value in [getattr(settings, name)]
    }


COLLABORATORS: dict[str, type] = {
    "store": ProjectStore,
    "allocator": PortAllocator,
    "launcher": LocalLauncher,
    "repository": Repository,
}


def _crash(place: str, when: str, turn: int) -> None:
    """Let this process be killed before or after one call of a collaborator's method.

    `place` is `<collaborator>.<method>`; `when` is before or after; the `turn`-th call
    of it counts, from 1. Every write the orchestrator makes is such a call, so these
    are all the places where an end can leave something half done.
    """
    name, _, method = place.partition(".")
    owner = COLLABORATORS[name]
    intended = getattr(owner, method)
    calls = itertools.count(1)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        last = next(calls) == turn
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = intended(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, method, deadly)


def _orchestrate(project_dir: str, given: str, snapshots: str, crash: list[Any] | None) -> None:
    settings, commands = pickle.loads(base64.b64decode(given))
    engine = open_engine(Path(project_dir), Settings(**settings))
    for command in commands:
        engine.submit(command)
    if crash is not None:
        _crash(*crash)
    partial = Path(snapshots + ".tmp")

    def publish(snapshot: object) -> None:
        partial.write_bytes(pickle.dumps(snapshot))
        partial.replace(snapshots)

    engine.run(publish)


def _main() -> None:
    children: set[int] = set()
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write)
    while True:
        ready, _, _ = select.select([0, read], [], [])
        if read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(read, 1000)
        for pid in tuple(children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                children.discard(pid)
                _say("ended", pid, os.waitstatus_to_exitcode(status))
        if 0 not in ready:
            continue
        line = sys.stdin.readline()
        if not line:
            return
        arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            # A test run that is broken off must not leave orchestrators behind.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            code = 0
            try:
                _orchestrate(*arguments)
            except AutocoderError as error:
                sys.stderr.write(f"refused: {error.message}\n")
                code = error.exit_code
            except BaseException:  # noqa: BLE001  # the test wants to read it
                traceback.print_exc()
                code = 70
            sys.stderr.flush()
            os._exit(code)
        children.add(pid)
        _say("forked", pid)


def _say(*words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
