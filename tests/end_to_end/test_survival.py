"""Agents outlive whatever happens to what started them: signals, closed terminals, cut links."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fleets import WAITS, Project, running
from support.pty import Terminal
from support.waiting import wait_until
from support.workers import is_alive

PANEL = Path(sys.executable).with_name("autocoder-tui")
HEADLESS = [sys.executable, "-m", "autocoder.core.cli", "parallel"]


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Iterator[Project]:
    project = Project(tmp_path, ports[:40], parallel=2)
    project.write_settings()
    project.add(WAITS, WAITS)
    yield project
    project.end_everything()
    wait_until(lambda: not project.processes(), what="the test's agents end")


@contextlib.contextmanager
def headless(project: Project, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*HEADLESS, "--project-dir", str(project.dir), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def active(project: Project) -> list[int]:
    """Pids of both workers, once both have reported."""

    def both() -> list[int]:
        if not project.database.exists():
            return []
        query = "SELECT pid FROM agent_heartbeats WHERE status = 'ACTIVE' AND pid IS NOT NULL"
        pids = [pid for (pid,) in project.query(query)]
        return pids if len(pids) == 2 else []

    return wait_until(both, seconds=60, what="two active agents")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_leaves_its_agents_running(
    project: Project, number: signal.Signals
) -> None:
    with headless(project, "--json") as run:
        pids = active(project)
        run.send_signal(number)
        output, _ = run.communicate(timeout=30)

    assert all(map(is_alive, pids))
    assert json.loads(output)["agents"]["live"] == 2


def test_an_interrupted_run_stops_its_agents_and_reports(project: Project) -> None:
    with headless(project, "--json") as run:
        active(project)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=60)

    assert run.returncode == 130
    assert json.loads(output)["agents"]["killed"] == 2
    assert not project.processes()


def test_a_run_interrupted_twice_leaves_at_once_and_its_agents_end_all_the_same(
    project: Project,
) -> None:
    with headless(project) as run:
        active(project)
        run.send_signal(signal.SIGINT)
        wait_until(
            lambda: project.query("SELECT 1 FROM agent_heartbeats WHERE status = 'STOPPING'")
        )
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)

    assert run.returncode == 130
    wait_until(lambda: not project.processes(), what="the agents end")


def test_a_run_that_is_stopped_and_continued_goes_on(project: Project) -> None:
    with headless(project) as run:
        pids = active(project)
        run.send_signal(signal.SIGSTOP)
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: not is_alive(pids[0]))
        run.send_signal(signal.SIGCONT)
        wait_until(lambda: project.query("SELECT 1 FROM agent_history WHERE status = 'CRASHED'"))

        assert run.poll() is None


def test_a_run_that_was_stopped_for_a_while_believes_nobody_dead(project: Project) -> None:
    with headless(project) as run:
        pids = active(project)
        run.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(run.pid) == "T")
        stopped_at = time.time()
        wait_until(lambda: beats_after(project, stopped_at), what="both workers report meanwhile")
        run.send_signal(signal.SIGCONT)
        wait_until(lambda: written_beats_after(project, stopped_at), what="their reports are read")

        assert active(project) == pids
        assert all(map(is_alive, pids))
        assert not project.query("SELECT * FROM agent_history")


def test_a_suspended_panel_gives_the_terminal_back_while_its_agents_go_on(
    project: Project,
) -> None:
    with Terminal([PANEL, str(project.dir)], size=(120, 40)) as terminal:
        pids = active(project)
        before = len(terminal.raw)
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.wait_for_bytes(b"\x1b[?1049l", before)
        wait_until(lambda: state_of(terminal.process.pid) == "T")
        assert terminal.echoes
        assert all(map(is_alive, pids))

        before = len(terminal.raw)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for_bytes(b"\x1b[?1049h", before)
        wait_until(lambda: not terminal.echoes, what="keys are read one by one again")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0

    assert all(map(is_alive, pids))
    assert not project.query("SELECT * FROM agent_history")


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def beats_after(project: Project, moment: float) -> bool:
    """Whether every worker has reported since, as its own file says."""
    folders = (project.dir / ".autocoder" / "agents").iterdir()
    return all((folder / "status.json").stat().st_mtime > moment for folder in folders)


def written_beats_after(project: Project, moment: float) -> bool:
    """As `beats_after`, by what the database says in whole seconds."""
    since = int(moment)
    query = f"SELECT min(strftime('%s', last_ping)) > '{since}' FROM agent_heartbeats"
    return bool(project.query(query)[0][0])


@pytest.mark.parametrize("end", ["killed", "terminal closed"])
def test_agents_outlive_their_panel_and_the_next_one_adopts_them(
    project: Project, end: str
) -> None:
    with Terminal([PANEL, str(project.dir)], size=(120, 40)) as terminal:
        pids = active(project)
        if end == "killed":
            terminal.process.kill()
        else:
            terminal.hang_up()
        terminal.process.wait(30)

    assert all(map(is_alive, pids))
    with running(project) as run:
        snapshot = run.wait(lambda s: sum(a.state == "ACTIVE" for a in s.agents) == 2)
        assert {agent.pid for agent in snapshot.agents} == set(pids)


@pytest.mark.skipif(shutil.which("sshd") is None, reason="openssh-server is not installed")
def test_agents_outlive_a_cut_ssh_connection(
    project: Project, tmp_path: Path, ports: range
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(make, check=True)
    (keys / "config").write_text(
        f"Port {ports[50]}\nListenAddress 127.0.0.1\nHostKey {keys}/host\nPidFile none\n"
        f"AuthorizedKeysFile {keys}/user.pub\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPasswordAuthentication no\nPermitUserEnvironment no\n"
    )
    kept = {"HOME", "PATH", *(name for name in os.environ if name.startswith("GIT_"))}
    carried = " ".join(f"{name}='{os.environ[name]}'" for name in sorted(kept & os.environ.keys()))
    ssh = [
        *("ssh", "-tt", "-F", "none", "-i", str(keys / "user"), "-p", str(ports[50])),
        *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={keys}/known"),
        *("-o", "BatchMode=yes", "127.0.0.1", f"env {carried} {PANEL} {project.dir}"),
    ]
    with sshd(keys / "config"):
        with Terminal(ssh, size=(120, 40)) as terminal:
            pids = active(project)
            terminal.process.kill()
            terminal.process.wait(20)
        holder = json.loads((project.dir / ".autocoder" / "orchestrator.lock").read_text() or "{}")
        wait_until(
            lambda: "pid" not in holder or not is_alive(holder["pid"]),
            seconds=30,
            what="the panel notices that its terminal is gone",
        )

        assert all(map(is_alive, pids))
        with running(project) as run:
            run.wait(lambda s: sum(a.state == "ACTIVE" for a in s.agents) == 2)
            assert run.snapshot is not None
            assert {agent.pid for agent in run.snapshot.agents} == set(pids)


@contextlib.contextmanager
def sshd(config: Path) -> Iterator[None]:
    """A server on loopback while the block runs; the test is skipped where none can run."""
    separation = Path("/run/sshd")  # where it insists on going when it is root's
    made = os.geteuid() == 0 and not separation.exists()
    if made:
        separation.mkdir(mode=0o755)
    log = config.with_name("log")
    with log.open("wb") as errors:
        server = subprocess.Popen(
            [str(shutil.which("sshd")), "-D", "-e", "-f", str(config)], stderr=errors
        )
    try:
        wait_until(lambda: b"listening" in log.read_bytes() or server.poll() is not None)
        if server.poll() is not None:
            pytest.skip(f"sshd does not run here: {log.read_text().strip()}")
        yield
    finally:
        server.terminate()
        server.wait(10)
        if made:
            separation.rmdir()
