import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from autocoder.core.demo import make_demo_project
from support.scripted_runs import SCRIPT, AgentRun, a_repository, git, held_pair
from support.sockets import bind
from support.waiting import wait_until

TAGS = {"id": 1, "name": "Tag todos"}
UNDO = {"id": 3, "name": "Undo delete"}
EXPORT = {"id": 4, "name": "Export to CSV"}
OWNERS = {"id": 5, "name": "Filter by owner"}
SHORTCUTS = {"id": 6, "name": "Keyboard shortcuts"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return a_repository(tmp_path / "some project")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return make_demo_project(tmp_path / "todo")


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    with held_pair() as ports:
        yield ports


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


# ------------------------------------------------------------- any repository


def test_it_calls_itself_scripted_before_anything_else(repository: Path) -> None:
    outcome = AgentRun(repository, TAGS).prepare().finish()
    assert outcome.lines[0] == "scripted agent: no model, a fixed script per feature"


def test_a_feature_without_a_script_becomes_a_committed_note(repository: Path) -> None:
    run = AgentRun(repository, {"id": 7, "name": "Fly", "description": "With wings."}).prepare()
    assert run.finish().code == 0
    assert run.commits() == ["Fly"]
    assert "With wings." in (run.worktree / "notes" / "7-fly.md").read_text()
    assert run.dirty() == []


def test_features_done_side_by_side_merge_without_conflict(repository: Path) -> None:
    runs = [
        AgentRun(repository, {"id": n, "name": "Same name"}, agent_id=f"a-{n}").prepare()
        for n in (1, 2, 3)
    ]
    assert [run.finish().code for run in runs] == [0, 0, 0]
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.invalid")
    for run in runs:
        git(repository, *who, "merge", "--quiet", "--no-edit", run.branch)
    assert len(list((repository / "notes").iterdir())) == 3


def test_another_attempt_in_the_same_worktree_commits_again(repository: Path) -> None:
    run = AgentRun(repository, TAGS).prepare()
    assert [run.finish().code, run.finish().code] == [0, 0]
    assert len(run.commits()) == 2


def test_a_commit_has_a_neutral_author_where_git_knows_none(repository: Path) -> None:
    run = AgentRun(repository, TAGS).prepare()
    assert run.finish().code == 0
    author = git(run.worktree, "log", "-1", "--format=%an <%ae>, %cn <%ce>")
    assert author == "scripted agent <scripted@localhost>, scripted agent <scripted@localhost>"


def test_a_commit_has_the_users_identity_where_git_knows_it(repository: Path) -> None:
    git(repository, "config", "user.name", "Grace")
    git(repository, "config", "user.email", "grace@example.invalid")
    run = AgentRun(repository, TAGS).prepare()
    assert run.finish().code == 0
    assert git(run.worktree, "log", "-1", "--format=%an <%ae>") == "Grace <grace@example.invalid>"


def test_hooks_of_the_repository_never_run(repository: Path, tmp_path: Path) -> None:
    canary = tmp_path / "hook ran"
    for name in ("pre-commit", "commit-msg", "post-commit"):
        hook = repository / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch '{canary}'\n")
        hook.chmod(0o755)
    assert AgentRun(repository, TAGS).prepare().finish().code == 0
    assert not canary.exists()


def test_a_link_that_leads_out_of_the_worktree_is_refused(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run = AgentRun(repository, TAGS).prepare()
    (run.worktree / "notes").symlink_to(outside)
    outcome = run.finish()
    assert outcome.code == 1
    assert outcome.reason == "notes/1-tag-todos.md leads out of the worktree"
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["--amend", "two\nlines\r\x00\x1b[2J", "../../x", "", "größer 🚀", "$(touch x)`", "\ud800"],
)
def test_any_name_of_a_feature_is_only_text(name: str, repository: Path) -> None:
    run = AgentRun(repository, {"id": 9, "name": name}).prepare()
    outcome = run.finish()
    assert outcome.code == 0, outcome.reason
    assert len(run.commits()) == 1
    assert b"\x1b" not in outcome.output
    assert git(run.worktree, "diff", "--name-only", "main").count("\n") == 0


def test_servers_run_in_any_repository_when_options_ask_for_them(
    repository: Path, pair: tuple[int, int]
) -> None:
    run = AgentRun(repository, TAGS, pair, options={"servers": True}).prepare()
    outcome = run.finish()
    assert outcome.code == 0, outcome.reason
    assert sum("http.server" in line for line in outcome.lines) >= 2
    assert not listens(pair[0])
    assert not listens(pair[1])


def test_a_note_needs_none_of_the_slow_imports(repository: Path) -> None:
    outcome = AgentRun(repository, TAGS).prepare().finish("-X", "importtime")
    assert outcome.code == 0
    imported = {line.rpartition("|")[2].strip() for line in outcome.lines if "import time" in line}
    assert "subprocess" in imported
    assert not imported & {"http.client", "email", "dataclasses", "typing", "argparse", "asyncio"}


@pytest.mark.parametrize("content", ["", "[]", '{"agent_id": "a"}', '{"feature": 1}'])
def test_a_run_description_that_makes_no_sense_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    done = subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT, path], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith(f"the run description {path} cannot be read")
    assert done.stderr == ""


# ------------------------------------------------------------ the demo project


def test_a_scripted_feature_is_edited_checked_tested_and_committed(
    demo: Path, pair: tuple[int, int]
) -> None:
    run = AgentRun(demo, TAGS, pair).prepare()
    outcome = run.finish()
    assert outcome.code == 0, outcome.reason
    assert run.commits() == ["Tag todos"]
    assert run.dirty() == []
    api, web = pair
    log = "\n".join(outcome.lines)
    assert "tool  edit  api/features/tags.py" in log
    assert f"http://localhost:{web}/config.json -> api http://localhost:{api}" in log
    assert f"POST http://localhost:{api}/api/todos -> 201" in log
    assert "OK" in log
    assert not listens(api)
    assert not listens(web)


def test_its_pair_can_be_bound_exclusively_as_soon_as_it_has_ended(demo: Path) -> None:
    with held_pair() as pair:
        assert AgentRun(demo, TAGS, pair).prepare().finish().code == 0
    for port in pair:
        bind(port).close()


def test_a_page_that_belongs_to_another_agent_fails_the_attempt(
    demo: Path, pair: tuple[int, int]
) -> None:
    class Neighbour(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Agent", "a-9999")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", pair[1]), Neighbour) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        outcome = AgentRun(demo, TAGS, pair).prepare().finish()
        server.shutdown()
        thread.join()
    assert outcome.code == 1
    assert outcome.reason == f"port {pair[1]} answers for a-9999, not for me"
    assert not listens(pair[0])


def test_tests_of_the_project_that_fail_fail_the_attempt(demo: Path, pair: tuple[int, int]) -> None:
    run = AgentRun(demo, TAGS, pair).prepare()
    broken = run.worktree / "tests" / "test_broken.py"
    broken.write_text(
        "import unittest\nclass T(unittest.TestCase):\n def test(self): self.fail()\n"
    )
    outcome = run.finish()
    assert outcome.code == 1
    assert outcome.reason.startswith("tests fail: ")
    assert run.commits() == []


def test_without_a_pair_the_reason_names_the_variable(demo: Path) -> None:
    outcome = AgentRun(demo, TAGS).prepare().finish()
    assert outcome.code == 1
    assert outcome.reason.startswith("$AUTOCODER_API_PORT is ''")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_together_with_its_servers(
    number: signal.Signals, demo: Path, pair: tuple[int, int]
) -> None:
    run = AgentRun(demo, TAGS, pair, options={"step_s": 0.2}).prepare()
    with run.start() as process:
        wait_until(lambda: all(map(listens, pair)), seconds=30, what="both servers listen")
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert output.decode().splitlines()[-1] == f"stopped by {number.name}"
    assert not any(map(listens, pair))


# -------------------------------------------------------------- misbehaviour


def misbehaving(demo: Path, feature: dict[str, object], pair: tuple[int, int]) -> AgentRun:
    return AgentRun(demo, feature, pair, options={"misbehave": True}).prepare()


def test_the_one_that_crashes_leaves_an_uncommitted_edit(demo: Path, pair: tuple[int, int]) -> None:
    run = misbehaving(demo, UNDO, pair)
    outcome = run.finish()
    assert outcome.code == -signal.SIGSEGV
    assert outcome.reason.startswith("crash on purpose: SIGSEGV, with api/features/undo.py")
    assert run.commits() == []
    assert run.dirty() == ["api/features/undo.py"]


def test_the_one_that_leaves_a_server_says_which(demo: Path, pair: tuple[int, int]) -> None:
    outcome = misbehaving(demo, EXPORT, pair).finish()
    assert outcome.code == 1
    assert f"on port {pair[1]}" in outcome.reason
    pid = int(outcome.reason.split("pid ")[1].split(",")[0])
    try:
        assert listens(pair[1])
        assert os.getsid(pid) == pid
        os.kill(pid, signal.SIGHUP)
        assert listens(pair[1])
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not listens(pair[1]), what="the killed server is gone")


def test_the_one_that_hard_codes_a_port_names_the_line_and_the_variable(
    demo: Path, pair: tuple[int, int]
) -> None:
    run = misbehaving(demo, OWNERS, pair)
    outcome = run.finish()
    assert outcome.code == 1
    assert "$AUTOCODER_API_PORT" in outcome.reason
    place = outcome.reason.split("on purpose: ")[1].split(" names port 5000")[0]
    path, _, line = place.partition(":")
    assert "5000" in (run.worktree / path).read_text().splitlines()[int(line) - 1]
    assert run.commits() == []


def test_the_hard_coded_api_never_takes_a_port_that_is_held(
    demo: Path, pair: tuple[int, int]
) -> None:
    wrong = SCRIPT.parents[1] / "demo/project/features/owners/wrong/api/__main__.py"
    (demo / "api" / "__main__.py").write_text(wrong.read_text().replace("5000", str(pair[0])))
    done = subprocess.run([sys.executable, "-m", "api"], cwd=demo, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"api: cannot listen on port {pair[0]}: Address already in use\n"


def test_the_one_that_prints_escapes_says_so_in_a_clean_last_line(
    demo: Path, pair: tuple[int, int]
) -> None:
    outcome = misbehaving(demo, SHORTCUTS, pair).finish()
    assert outcome.code == 1
    for attack in (
        b"\x1b]52;",
        b"\x1b]8;;",
        b"\x1bP",
        b"\x1b[2J",
        b"\x1b[?1049h",
        b"\x9b",
        b"\x07",
    ):
        assert attack in outcome.output
    assert "\u202e" in outcome.output.decode(errors="replace")
    last = outcome.output.splitlines()[-1].decode("ascii")
    assert last.isprintable()
    assert "on purpose" in last


@pytest.mark.parametrize("feature", [UNDO, EXPORT, OWNERS, SHORTCUTS], ids=lambda f: f["name"])
def test_a_later_attempt_in_the_same_worktree_behaves(
    feature: dict[str, object], demo: Path, pair: tuple[int, int]
) -> None:
    first = misbehaving(demo, feature, pair)
    outcome = first.finish()
    assert outcome.code != 0
    if "pid " in outcome.reason:
        os.kill(int(outcome.reason.split("pid ")[1].split(",")[0]), signal.SIGKILL)
        wait_until(lambda: not listens(pair[1]), what="the killed server is gone")
    second = AgentRun(demo, feature, pair, attempt=2, options={"misbehave": True})
    again = second.finish()
    assert again.code == 0, again.reason
    assert second.commits() == [feature["name"]]
    assert second.dirty() == []
