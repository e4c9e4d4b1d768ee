"""The panel in a real terminal, on real agents: keys do what the screen says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.demo import demo_environment, listening_ports, processes_below, rows
from support.pty import Terminal
from support.waiting import wait_until
from support.workers import is_alive

PANEL = Path(sys.executable).with_name("autocoder-tui")


def lasting_demo(folder: Path, ports: range) -> dict[str, str]:
    """In which no agent ends by itself, however slow the machine."""
    environ = demo_environment(folder, ports, step_s=60)
    return environ | {"AUTOCODER_SCRIPTED_MISBEHAVE": "no"}


def project_in(folder: Path) -> Path:
    return next(folder.glob("autocoder-demo-*/todo-app"))


def live_pids(project: Path) -> dict[str, int]:
    found = rows(
        project / "agent_system.db",
        "SELECT agent_id, pid FROM agent_heartbeats WHERE pid IS NOT NULL",
    )
    return {str(agent_id): int(str(pid)) for agent_id, pid in found}


def row_of(screen: str, agent_id: str) -> str:
    return next((line for line in screen.splitlines() if f" {agent_id} " in line), "")


@pytest.mark.timeout(300)
def test_a_user_spawns_kills_recovers_extends_and_leaves(tmp_path: Path, ports: range) -> None:
    environ = lasting_demo(tmp_path, ports)
    with Terminal(
        [PANEL, "demo", "--parallel", "2"], env=environ, cwd=tmp_path, size=(140, 40)
    ) as terminal:
        terminal.wait_for("2 active", 60)
        project = project_in(tmp_path)

        terminal.press("n")
        terminal.wait_for("3 active")
        pids = live_pids(project)
        assert len(pids) == 3

        terminal.press("g", "X")
        question = terminal.wait_for("Kill 1 agent?")
        victim = next(
            agent for line in question.splitlines() for agent in pids if f" {agent} " in line
        )
        terminal.press("enter")
        terminal.wait_for("Kill 1 agent?")
        assert is_alive(pids[victim])
        terminal.press("y")
        terminal.wait_for(lambda screen: "killed" in row_of(screen, victim), what="it is killed")
        assert not is_alive(pids[victim])
        assert rows(
            project / "agent_system.db",
            f"SELECT status FROM agent_history WHERE agent_id = '{victim}'",
        ) == [("KILLED",)]

        terminal.press("r")
        if "Recover" in terminal.wait_for(lambda screen: "ecover" in screen):
            terminal.press("y")
        wait_until(lambda: len(live_pids(project)) >= 3, what="the recovered agent's worker")

        before = re.search(r"/(\d+) ", terminal.text)
        terminal.press("e")
        terminal.wait_for("Extend")
        terminal.press("enter")
        terminal.wait_for(
            lambda screen: (
                (after := re.search(r"/(\d+) ", screen)) is not None
                and before is not None
                and int(after[1]) > int(before[1])
            ),
            what="a larger pool",
        )
        assert rows(tmp_path / "ledger.db", "SELECT COUNT(*) FROM port_ranges") != [(0,)]

        terminal.press("q")
        assert terminal.wait_for_exit() == 0
        assert "keep running" in terminal.written

    left = live_pids(project)
    assert left
    assert all(is_alive(pid) for pid in left.values())

    with Terminal([PANEL, project], env=environ, cwd=tmp_path, size=(140, 40)) as terminal:
        for agent_id, pid in left.items():
            terminal.wait_for(
                lambda screen, a=agent_id, p=pid: str(p) in row_of(screen, a),  # type: ignore[misc]
                60,
                what=f"{agent_id} adopted",
            )
        terminal.press("Q")
        terminal.wait_for("Stop ")
        terminal.press("Q")
        assert terminal.wait_for_exit(60) == 0

    assert not list(processes_below(tmp_path))
    assert not listening_ports() & set(ports)
    assert rows(project / "agent_system.db", "SELECT * FROM agent_heartbeats") == []


def test_a_lost_terminal_leaves_the_agents_at_work(tmp_path: Path, ports: range) -> None:
    environ = lasting_demo(tmp_path, ports)
    with Terminal([PANEL, "demo", "--parallel", "2"], env=environ, cwd=tmp_path) as terminal:
        terminal.wait_for("2 active", 60)
        project = project_in(tmp_path)
        terminal.hang_up()
        terminal.process.wait(30)

    left = live_pids(project)
    assert len(left) == 2
    assert all(is_alive(pid) for pid in left.values())

    with Terminal([PANEL, project], env=environ, cwd=tmp_path) as terminal:
        terminal.wait_for(lambda screen: all(str(pid) in screen for pid in left.values()), 60)
        terminal.press("Q", "Q")
        assert terminal.wait_for_exit(60) == 0
    assert not list(processes_below(tmp_path))


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_inside_tmux_a_user_comes_back_to_the_same_panel_after_a_cut(
    tmp_path: Path, ports: range
) -> None:
    environ = lasting_demo(tmp_path, ports)
    tmux = ["tmux", "-f", os.devnull, "-S", str(tmp_path / "socket")]
    panel = shlex.join([str(PANEL), "demo", "--parallel", "2"])
    try:
        with Terminal([*tmux, "new-session", panel], env=environ, cwd=tmp_path) as terminal:
            terminal.wait_for("2 active", 60)
            terminal.press("n")
            terminal.wait_for("3 active")
            terminal.hang_up()
            terminal.process.wait(30)
        project = project_in(tmp_path)
        pids = live_pids(project)
        assert all(is_alive(pid) for pid in pids.values())

        with Terminal([*tmux, "attach"], env=environ, cwd=tmp_path, size=(100, 30)) as terminal:
            victim, pid = next(iter(live_pids(project).items()))
            terminal.wait_for(str(pid))
            terminal.press(":", *victim)
            terminal.wait_for(f"Go to {victim}")
            terminal.press("enter")
            terminal.wait_for(lambda screen: f"Go to {victim}" not in screen)
            terminal.press("X")
            terminal.wait_for("Kill 1 agent?")
            terminal.press("y")
            wait_until(lambda: not is_alive(pid), what=f"{victim} is killed")
            terminal.wait_for("killed")
            terminal.press("Q")
            terminal.wait_for("Stop ")
            terminal.press("Q")
            assert terminal.wait_for_exit(60) == 0
    finally:
        subprocess.run([*tmux, "kill-server"], capture_output=True, check=False)
    # The server answers before it has ended.
    wait_until(lambda: not list(processes_below(tmp_path)), what="all of it ends")
    assert not listening_ports() & set(ports)
