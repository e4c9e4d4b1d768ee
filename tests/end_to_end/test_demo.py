"""The main job: the demo's backlog, from `autocoder-tui demo` to the last merged branch."""

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from support.demo import demo_environment, listening_ports, processes_below, rows

SEED_QUERIES = {
    "no api port twice": "SELECT api_port FROM agent_heartbeats GROUP BY api_port "
    "HAVING COUNT(*) > 1",
    "no web port twice": "SELECT web_port FROM agent_heartbeats GROUP BY web_port "
    "HAVING COUNT(*) > 1",
    "no port of a completed agent": "SELECT agent_id FROM agent_heartbeats "
    "WHERE status = 'COMPLETED' AND (api_port IS NOT NULL OR web_port IS NOT NULL)",
}


@pytest.fixture
def surroundings(tmp_path: Path, ports: range) -> dict[str, str]:
    return demo_environment(tmp_path, ports, step_s=0.05)


@pytest.mark.timeout(300)
def test_the_demo_ends_with_every_feature_merged_and_nothing_left(
    tmp_path: Path, ports: range, surroundings: dict[str, str]
) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "autocoder.tui", "demo"],
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    violations = []
    while demo.poll() is None:
        for database in tmp_path.glob("autocoder-demo-*/todo-app/agent_system.db"):
            for claim, query in SEED_QUERIES.items():
                with contextlib.suppress(sqlite3.OperationalError):
                    found = rows(database, query)
                    violations += [(claim, found)] if found else []
        with contextlib.suppress(subprocess.TimeoutExpired):
            demo.wait(0.05)
    report, progress = demo.communicate()
    project = next(tmp_path.glob("autocoder-demo-*/todo-app"))
    database = project / "agent_system.db"

    assert demo.returncode == 0, progress + report
    assert not violations
    assert "12 of 12 features done" in report
    assert "EADDRINUSE  0 on agents' own ports" in report
    # The four that misbehave on purpose are named with what they did, then done.
    for cause in ("SIGSEGV", "left behind", "port 5000", "escape"):
        assert cause in report
    assert not list(processes_below(tmp_path))
    assert rows(database, "SELECT * FROM agent_heartbeats") == []
    assert not listening_ports() & set(ports)
    states = rows(tmp_path / "ledger.db", "SELECT DISTINCT state FROM port_leases")
    assert {state for (state,) in states} <= {"cooling"}
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True, check=True
    )
    assert status.stdout == ""
    subprocess.run([sys.executable, "-m", "unittest"], cwd=project, check=True, capture_output=True)


@pytest.mark.timeout(120)
def test_instant_features_of_any_repository_are_all_merged(
    tmp_path: Path, surroundings: dict[str, str]
) -> None:
    project = tmp_path / "plain"
    subprocess.run(["git", "init", "-q", "-b", "main", str(project)], check=True)
    (project / "README").write_text("a repository\n")
    for command in (["add", "README"], ["commit", "-qm", "begin"]):
        subprocess.run(["git", "-C", str(project), *command], check=True)
    backlog = tmp_path / "backlog.json"
    backlog.write_text(json.dumps([{"name": f"Feature number {n}"} for n in range(8)]))
    autocoder = [sys.executable, "-m", "autocoder.core.cli"]
    environ = surroundings | {"AUTOCODER_SCRIPTED_STEP_S": "0"}
    subprocess.run(
        [*autocoder, "features", "import", str(backlog), "--project-dir", str(project)],
        env=environ,
        check=True,
        capture_output=True,
    )

    done = subprocess.run(
        [*autocoder, "parallel", "--project-dir", str(project), "--parallel", "5", "--json"],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )

    report = json.loads(done.stdout)
    agents = report["agents"]
    assert report["features"] == {"total": 8, "done": 8, "blocked": 0, "pending": 0}
    assert agents["spawned"] == sum(agents[e] for e in ("completed", "failed", "crashed", "killed"))
    assert report["leases"] == {"granted": agents["spawned"], "released": agents["spawned"]}
    assert report["eaddrinuse"] == 0
    assert all(json.loads(line)["event"] for line in done.stderr.splitlines())
    log = subprocess.run(
        ["git", "-C", str(project), "log", "--oneline", "--no-merges", "main"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert len(log.stdout.splitlines()) == 9


def test_a_bad_setting_is_refused_before_there_is_a_demo(
    tmp_path: Path, surroundings: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autocoder.tui", "demo"],
        env=surroundings | {"AUTOCODER_PARALLEL": "many"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "AUTOCODER_PARALLEL" in done.stderr
    assert list(tmp_path.iterdir()) == []
