"""An agent program with a conversation, from its start over a message to its recovery.

The program stands in for codex: it is found on PATH by that name, prints what codex
prints, and does with a message what the message says.
"""

import json
import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core.agent_worker import CREDENTIALS
from autocoder.core.client import Client
from autocoder.core.commands import KillAgent, RecoverAgent, SpawnAgent, TellAgent
from autocoder.core.errors import AutocoderError
from autocoder.core.headless import report_text
from autocoder.core.models import AgentState, Severity, Snapshot
from support import projects
from support.commands import autocoder
from support.fleets import WAITS, Project, Running, running
from support.repositories import git

CODEX = """
    import json, os, signal, subprocess, sys

    def say(**message):
        print(json.dumps(message), flush=True)

    def commit(name):
        with open(name, "w"), open("package.json", "w") as manifest:
            json.dump(dict(devDependencies=dict(vite="8")), manifest)
        subprocess.run(["git", "add", "-A"], check=True)
        subprocess.run(["git", "commit", "-q", "-m", name], check=True)

    prompt = sys.stdin.read()
    with open(os.environ["AUTOCODER_RUN_FOLDER"] + "/seen", "w") as seen:
        json.dump(dict(os.environ), seen)
    print(sorted(os.environ.values()), flush=True)
    resumed = sys.argv[sys.argv.index("resume") + 1] if "resume" in sys.argv else ""
    say(type="thread.started", thread_id=resumed or "conversation-" + str(os.getpid()))
    item = dict(id="1", type="command_execution", command="ls", aggregated_output="", exit_code=0)
    say(type="item.started", item=item)
    say(type="item.completed", item=item)
    say(type="turn.completed", usage=dict(input_tokens=1200, output_tokens=34))
    if "finish now" in prompt:
        commit("told" if "The person who runs you says" in prompt else "gone on with")
    else:
        say(type="item.started", item=dict(item, command="sleep"))
        signal.pause()
    say(type="turn.completed", usage=dict(input_tokens=2400, output_tokens=68))
"""


@pytest.fixture(autouse=True)
def codex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "codex").write_text(f"#!{sys.executable} -IS{textwrap.dedent(CODEX)}")
    (programs / "codex").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Project:
    return Project(tmp_path, ports[:20], parallel=0, backend="codex", model="gpt-4.1", yolo=True)


def shown(run: Running, feature_id: int, condition: Callable[..., bool]) -> object:
    return run.wait(
        lambda s: any(a.feature_id == feature_id and condition(a) for a in s.agents), seconds=30
    )


def test_a_message_reaches_a_running_agent_and_its_progress_is_seen_and_stays(
    project: Project,
) -> None:
    (feature_id,) = project.add("")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        shown(run, feature_id, lambda a: a.tokens == 1234 and a.last_tool == "shell")
        agent = run.agent_of(feature_id)
        run.submit(TellAgent(agent.agent_id, "Good:\nfinish now"))
        run.notice("told: Good: finish now")
        ended = run.agent_of(feature_id, "COMPLETED")
        shown(run, feature_id, lambda a: not a.live and a.tokens == 2468)
        told = run.notice("its app was at", f"{agent.api_port}").text
    assert ended.model == "gpt-4.1"
    url = f"http://localhost:{agent.web_port}"
    start = f"from main: npx vite --port {agent.web_port} --strictPort; then open {url}"
    assert told.endswith(start)
    log = Path(ended.log_path).read_text()
    assert "told  Good:" in log
    assert log.splitlines()[-1] == f"autocoder: {told}"
    assert start in report_text(run.report())
    assert git(project.dir, "ls-tree", "--name-only", "main", "told") == "told"
    with running(project) as later:
        remembered = shown(later, feature_id, lambda a: a.tokens == 2468)
    assert isinstance(remembered, Snapshot)
    assert remembered.agents[0].model == "gpt-4.1"


def test_messages_come_by_the_command_line_and_by_rest(tmp_path: Path, ports: range) -> None:
    project = projects.Project(tmp_path, ports[:20], features=1)
    run = projects.Running(project.open_served(parallel=0, backend="codex"))
    client = Client(project.folder)
    try:
        run.wait_for(lambda _: True)
        client.ask("POST", "/api/agents", {"feature_id": 1})
        agent = run.wait_for(lambda s: s.agents and s.agents[0].tokens).agents[0]
        (listed,) = client.ask("GET", "/api/agents")
        assert (listed["tokens"], listed["last_tool"]) == (1234, "shell")
        path = f"/api/agents/{agent.agent_id}/tell"
        with pytest.raises(AutocoderError, match="text"):
            client.ask("POST", path, {"text": "  "})
        client.ask("POST", path, {"text": "First say where you are."})
        run.wait_for(lambda s: any("First say" in notice.text for notice in s.notices))
        told = autocoder("agents", "tell", agent.agent_id, "finish now", "-C", project.folder)
        assert (told.code, "is told" in told.out) == (0, True), told
        ended = run.wait_for(lambda s: not s.agents[0].live).agents[0]
        assert ended.state is AgentState.COMPLETED
        assert "told  First say where you are." in Path(ended.log_path).read_text()
        late = autocoder("agents", "tell", agent.agent_id, "more", "-C", project.folder)
        assert (late.code, "is not running" in late.err) == (3, True), late
    finally:
        run.stop()


def test_a_recovered_agent_goes_on_with_its_conversation_on_its_new_ports(
    project: Project,
) -> None:
    (feature_id,) = project.add("")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        shown(run, feature_id, lambda a: a.tokens > 0)
        first = run.agent_of(feature_id)
        run.submit(RecoverAgent(first.agent_id))
        assert run.ended(first.agent_id).state is AgentState.KILLED
        run.wait(lambda s: any(a.live and a.tokens > 0 for a in s.agents))
        second = run.agent_of(feature_id)
    described = json.loads((project.run_folder(second.agent_id) / "run.json").read_text())
    assert described["resume_id"].startswith("conversation-")
    assert "taken up again" in Path(second.log_path).read_text()
    assert described["mcp_servers"]["features"]["env"]["AUTOCODER_WEB_PORT"] == str(second.web_port)
    assert described["worktree"] == first.worktree_path


def test_no_key_of_another_provider_reaches_an_agent_and_its_own_is_written_nowhere(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, f"value-of-{name}")
    (feature_id,) = project.add("")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        shown(run, feature_id, lambda a: a.tokens > 0)
        agent = run.agent_of(feature_id)
        run.submit(KillAgent(agent.agent_id))
        run.ended(agent.agent_id)
        snapshot = json.dumps(run.snapshot, default=str)
    folder = project.run_folder(agent.agent_id)
    seen = json.loads((folder / "seen").read_text())
    assert {name for name in CREDENTIALS if name in seen} == {
        name for name, users in CREDENTIALS.items() if "codex" in users
    }
    (folder / "seen").unlink()
    written = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    assert {"log", "exit.json", "status.json", "events.jsonl", "run.json"} <= written.keys()
    assert "[secret]" in written["log"]
    for name, text in {**written, "snapshot": snapshot}.items():
        assert "value-of-" not in text, name


def test_an_agent_that_takes_no_messages_says_so(tmp_path: Path, project: Project) -> None:
    project.settings = replace(project.settings, backend="test")
    (feature_id,) = project.add(WAITS)
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        agent = run.agent_of(feature_id)
        run.submit(TellAgent(agent.agent_id, "Hello"))
        assert run.notice("cannot be told anything").severity is Severity.WARNING
        run.submit(TellAgent("a-none", "Hello"))
        run.notice("a-none is not running")
        run.submit(KillAgent(agent.agent_id))
        run.ended(agent.agent_id)
