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

from autocoder.core.commands import KillAgent, RecoverAgent, SpawnAgent, TellAgent
from autocoder.core.models import AgentState, Severity
from support.fleets import WAITS, Project, Running, running
from support.repositories import git

CODEX = """
    import json, os, signal, subprocess, sys

    def say(**message):
        print(json.dumps(message), flush=True)

    def commit(name):
        with open(name, "w") as file:
            file.write(os.environ["AUTOCODER_WEB_PORT"])
        subprocess.run(["git", "add", "-A"], check=True)
        subprocess.run(["git", "commit", "-q", "-m", name], check=True)

    prompt = sys.stdin.read()
    resumed = sys.argv[sys.argv.index("resume") + 1] if "resume" in sys.argv else ""
    say(type="thread.started", thread_id=resumed or "conversation-" + str(os.getpid()))
    item = dict(id="1", type="command_execution", command="ls", aggregated_output="", exit_code=0)
    say(type="item.started", item=item)
    say(type="item.completed", item=item)
    say(type="turn.completed", usage=dict(input_tokens=1200, output_tokens=34))
    if "commit it" in prompt:
        commit("told" if "The person who runs you says" in prompt else "gone on with")
    else:
        say(type="item.started", item=dict(item, command="sleep"))
        signal.pause()
    say(type="turn.completed", usage=dict(input_tokens=2400, output_tokens=68))
"""


@pytest.fixture
def project(tmp_path: Path, ports: range, monkeypatch: pytest.MonkeyPatch) -> Project:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "codex").write_text(f"#!{sys.executable} -IS{textwrap.dedent(CODEX)}")
    (programs / "codex").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return Project(tmp_path, ports[:20], parallel=0, backend="codex", model="gpt-4.1", yolo=True)


def shown(run: Running, feature_id: int, condition: Callable[..., bool]) -> object:
    return run.wait(
        lambda s: any(a.feature_id == feature_id and condition(a) for a in s.agents), seconds=30
    )


def test_a_message_reaches_a_running_agent_and_its_progress_is_seen(project: Project) -> None:
    (feature_id,) = project.add("")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        shown(run, feature_id, lambda a: a.tokens == 1234 and a.last_tool == "shell")
        agent = run.agent_of(feature_id)
        run.submit(TellAgent(agent.agent_id, "Good:\ncommit it"))
        run.notice("told: Good: commit it")
        ended = run.agent_of(feature_id, "COMPLETED")
        shown(run, feature_id, lambda a: not a.live and a.tokens == 2468)
    assert ended.model == "gpt-4.1"
    assert "told  Good:" in Path(ended.log_path).read_text()
    assert git(project.dir, "show", "main:told")


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


def test_a_feature_runs_its_own_backend(project: Project) -> None:
    project.settings = replace(project.settings, backend="test")
    (feature_id,) = project.add(WAITS, backend="codex")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        shown(run, feature_id, lambda a: a.backend == "codex" and a.tokens > 0)
        agent = run.agent_of(feature_id)
        run.submit(KillAgent(agent.agent_id))
        run.ended(agent.agent_id)
