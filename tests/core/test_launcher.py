"""Workers are started, found again by who they are, and their remains are ended."""

import functools
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autocoder.core.errors import RefusedError
from autocoder.core.launcher import LocalLauncher, WorkerProcess, WorkerSpec, run_folder
from autocoder.core.models import PortPair
from autocoder.core.probe import Liveness, local_kernel
from autocoder.core.settings import Settings
from support.waiting import wait_until
from support.workers import is_alive

WAITS = "import os, signal\nprint('ready', flush=True)\nsignal.pause()"

STRAYS = """
import os, signal, subprocess, sys
environments = {"marked": None, "cleared": {}}
for name, env in environments.items():
    code = "import os,signal; open(%r,'w').write(f'{os.getpid()}\\\\n'); signal.pause()" % name
    subprocess.Popen([sys.executable, "-I", "-S", "-c", code], env=env, start_new_session=True)
signal.pause()
"""


@pytest.fixture
def launcher(tmp_path: Path) -> LocalLauncher:
    return LocalLauncher(tmp_path, Settings(), local_kernel())


@pytest.fixture
def start(
    tmp_path: Path, launcher: LocalLauncher, pair: tuple[int, int]
) -> Iterator[Callable[[str], WorkerProcess]]:
    """Starts a worker whose backend is a program of the test's."""
    started: list[WorkerProcess] = []

    def begin(program: str) -> WorkerProcess:
        worktree = tmp_path / "worktree"
        worktree.mkdir()
        worker = launcher.start(
            WorkerSpec(
                agent_id="a-0001",
                feature_id=1,
                backend="scripted",
                worktree=worktree,
                pair=PortPair(*pair, epoch=1),
                model="",
                max_iterations=5,
                run={"command": [sys.executable, "-I", "-S", "-c", program]},
            )
        )
        started.append(worker)
        return worker

    yield begin
    for worker in started:
        if not launcher.has_ended(worker):
            launcher.destroy(worker)
            wait_until(functools.partial(launcher.has_ended, worker))
        launcher.end_leftovers("a-0001", tmp_path / "worktree", worker)
        launcher.close(worker)


def pid_in(file: Path) -> int:
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"), what=str(file))
    return int(file.read_text())


def test_a_started_worker_shows_its_ports_in_the_process_table(
    start: Callable[[str], WorkerProcess], pair: tuple[int, int]
) -> None:
    worker = start(WAITS)

    shown = wait_until(Path(f"/proc/{worker.pid}/cmdline").read_text)
    arguments = shown.split("\0")
    assert any(Path(argument).name == "agent_worker.py" for argument in arguments)
    assert arguments[arguments.index("--api-port") + 1] == str(pair[0])
    assert arguments[arguments.index("--web-port") + 1] == str(pair[1])


def test_a_stopped_worker_ends_and_says_how(
    launcher: LocalLauncher, start: Callable[[str], WorkerProcess], tmp_path: Path
) -> None:
    worker = start(WAITS)
    wait_until(lambda: launcher.heartbeat("a-0001"))

    launcher.stop(worker)
    wait_until(lambda: launcher.has_ended(worker))

    facts = launcher.facts("a-0001")
    assert facts is not None
    assert facts.ending == "stopped"


def test_the_end_of_a_worker_makes_its_pidfd_readable(
    launcher: LocalLauncher, start: Callable[[str], WorkerProcess]
) -> None:
    worker = start("pass")
    assert worker.pidfd is not None

    readable, _, _ = select.select([worker.pidfd], [], [], 20)

    assert readable
    assert launcher.has_ended(worker)


def test_a_live_worker_is_adopted_by_another_launcher_which_reaps_it_in_the_same_process(
    launcher: LocalLauncher, start: Callable[[str], WorkerProcess], tmp_path: Path
) -> None:
    worker = start(WAITS)
    kernel = local_kernel()
    another = LocalLauncher(tmp_path, Settings(), kernel)

    boot_id = kernel.identity.boot_id
    adopted = wait_until(lambda: another.adopt("a-0001", worker.pid, worker.start, boot_id)[1])

    assert adopted is not None
    assert (adopted.pid, adopted.start, adopted.child) == (worker.pid, worker.start, True)
    another.stop(adopted)
    wait_until(lambda: another.has_ended(adopted))
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    another.close(adopted)


@pytest.mark.parametrize("what", ["start", "boot", "agent"])
def test_a_recycled_pid_is_never_adopted(
    launcher: LocalLauncher, start: Callable[[str], WorkerProcess], what: str
) -> None:
    worker = start(WAITS)
    boot_id = local_kernel().identity.boot_id
    wait_until(lambda: local_kernel().command_line(worker.pid))

    liveness, adopted = launcher.adopt(
        "a-0002" if what == "agent" else "a-0001",
        worker.pid,
        worker.start + (what == "start"),
        "another boot" if what == "boot" else boot_id,
    )

    assert adopted is None
    assert liveness is Liveness.DEAD


def test_what_a_killed_worker_leaves_is_ended_and_nothing_else(
    launcher: LocalLauncher, start: Callable[[str], WorkerProcess], tmp_path: Path
) -> None:
    worker = start(STRAYS)
    marked, cleared = (pid_in(tmp_path / "worktree" / name) for name in ("marked", "cleared"))
    bystander = os.posix_spawn(
        "/bin/sleep",
        ["sleep", "300"],
        {},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
    )
    try:
        launcher.destroy(worker)
        wait_until(lambda: launcher.has_ended(worker))

        ended = launcher.end_leftovers("a-0001", tmp_path / "worktree", worker)

        assert ended >= 3  # the backend and both strays
        assert launcher.facts("a-0001") is None
        assert not is_alive(marked)
        assert not is_alive(cleared)
        assert is_alive(bystander)
    finally:
        os.kill(bystander, signal.SIGKILL)
        os.waitpid(bystander, 0)


def test_another_agents_processes_are_no_leftovers(
    launcher: LocalLauncher, start: Callable[[str], WorkerProcess], tmp_path: Path
) -> None:
    worker = start(WAITS)
    wait_until(lambda: "ready" in (run_folder(tmp_path, "a-0001") / "log").read_text())

    assert launcher.end_leftovers("a-0002", tmp_path / "elsewhere", None) == 0
    assert is_alive(worker.pid)


def test_a_worker_that_cannot_be_started_is_refused_with_the_cause(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    (tmp_path / ".autocoder").write_text("in the way")
    launcher = LocalLauncher(tmp_path, Settings(), local_kernel())
    spec = WorkerSpec("a-0001", 1, "scripted", tmp_path, PortPair(*pair, 1), "", 5, {})

    with pytest.raises(RefusedError, match=r"a-0001.*Not a directory"):
        launcher.start(spec)
