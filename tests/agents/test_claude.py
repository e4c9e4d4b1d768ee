"""The real Claude Agent SDK and its bundled program, under real workers, against the stub."""

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from autocoder.core import telling
from autocoder.core.events import Finished, Outcome, Retry, Told, ToolEnd, Warned
from autocoder.core.settings import Settings
from support.agents import KEY, RunningAgent, running_agent
from support.model_stub import Fail, Hang, Mcp, ModelStub, Say, Shell, Step
from support.repositories import git
from support.waiting import wait_until

SERVE = """
python3 -m http.server --bind 127.0.0.1 "$AUTOCODER_API_PORT" >"$TMPDIR/api.log" 2>&1 &
echo $! > "$TMPDIR/api.pid"
python3 -m http.server --bind 127.0.0.1 "$AUTOCODER_WEB_PORT" >"$TMPDIR/web.log" 2>&1 &
echo $! > "$TMPDIR/web.pid"
for try in $(seq 100); do
  curl -sf "http://localhost:$AUTOCODER_WEB_PORT/README.md" && break
  sleep 0.1
done
echo "web answers on $AUTOCODER_WEB_PORT"
"""
COMMIT = 'echo found > search.txt && git add -A && git commit -q -m "Search" && git status --short'

SCRIPTS: dict[str, Sequence[Step]] = {
    "work": [
        Mcp("ports_get"),
        Shell(SERVE),
        Shell(COMMIT),
        Shell('kill "$(cat "$TMPDIR/api.pid")" && echo ended'),
        Mcp("feature_mark_passing", {"feature_id": 2}),
        Say("Search works."),
    ],
    "refused": [
        Shell("python3 -m http.server 8000"),
        Shell("git push origin HEAD"),
        Shell("pkill -f http.server"),
        Mcp("feature_mark_passing", {"feature_id": 1}),
        Shell(COMMIT),
    ],
    "forgets": [Say("Done already."), Shell(COMMIT), Say("Now it is committed.")],
    "no-key": [Fail(401, "authentication_error")],
    "busy": [Fail(429, "rate_limit_error", 1), Shell(COMMIT)],
    "down": [Fail(500, "api_error")],
    "hang": [Shell("echo begun > begun.txt"), Hang()],
    "resumed": [Shell(COMMIT), Say("Gone on with.")],
}


@pytest.fixture(scope="module")
def stub() -> Iterator[ModelStub]:
    opened = ModelStub(SCRIPTS)
    yield opened
    opened.close()


def claude(folder: Path, stub: ModelStub, pair: tuple[int, int], script: str, **more: Any) -> Any:
    settings = Settings(backend="claude", model="sonnet")
    return running_agent(folder, stub, pair, settings=settings, script=script, **more)


def ends(agent: RunningAgent) -> list[ToolEnd]:
    return [event for event in agent.events if isinstance(event, ToolEnd)]


def outcome(agent: RunningAgent) -> Finished:
    return [event for event in agent.events if isinstance(event, Finished)][-1]


def test_a_feature_is_worked_on_from_its_ports_to_its_commit(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int]
) -> None:
    with claude(tmp_path, stub, pair, "work") as agent:
        facts = agent.wait()
        assert facts["exit_code"] == 0, agent.log
        ports, served, committed, killed, submitted = ends(agent)
        assert json.loads(ports.detail)["api_port"] == pair[0]
        assert f"web answers on {pair[1]}" in served.detail
        assert "a project" in served.detail
        assert committed.ok
        assert "ended" in killed.detail
        assert json.loads(submitted.detail)["success"]
        assert git(agent.worktree, "log", "--format=%s", "-1") == "Search"
        # The web server was left running; the worker has ended it.
        assert any("http.server" in left for left in facts["left_behind"]), facts
        assert sorted(facts["ports_free"]) == sorted(pair)
        progress = agent.progress
        assert progress.outcome is Outcome.SUCCESS
        assert progress.last_tool == "mcp__features__feature_mark_passing"
        assert (progress.input_tokens, progress.output_tokens) == (600, 120)
        assert progress.cost_usd > 0
        assert progress.resume_id
        assert KEY not in agent.written()


def test_what_reaches_beyond_the_agent_is_refused_before_it_runs(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int]
) -> None:
    with claude(tmp_path, stub, pair, "refused") as agent:
        facts = agent.wait()
        port, push, kill, feature, commit = ends(agent)
        assert "$AUTOCODER_WEB_PORT" in port.detail
        assert "nothing is pushed" in push.detail
        assert "other agents" in kill.detail
        assert "feature 1 is not yours" in feature.detail
        assert not any(end.ok for end in (port, push, kill, feature))
        assert commit.ok
        assert facts["exit_code"] == 0
        warned = [event.text for event in agent.events if isinstance(event, Warned)]
        assert sum(text.startswith("refused: ") for text in warned) == 3
        assert agent.store.feature(1).name == "Other"


def test_an_agent_that_forgot_to_commit_is_asked_once_more(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int]
) -> None:
    with claude(tmp_path, stub, pair, "forgets", max_iterations=3) as agent:
        assert agent.wait()["exit_code"] == 0
        assert agent.progress.iteration == 2
        assert any("there is no commit on your branch" in asked.text for asked in stub.asked)
        assert git(agent.worktree, "log", "--format=%s", "-1") == "Search"


def test_a_wrong_key_fails_at_once_and_is_not_called_a_success(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int]
) -> None:
    with claude(tmp_path, stub, pair, "no-key") as agent:
        facts = agent.wait(30)
        assert facts["exit_code"] == 1
        assert outcome(agent).outcome is Outcome.FAILED
        assert "refuses the credential" in facts["last_lines"][-1]
        assert "401" in agent.progress.reason


def test_a_busy_service_is_waited_for(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int]
) -> None:
    with claude(tmp_path, stub, pair, "busy") as agent:
        assert agent.wait()["exit_code"] == 0
        retries = [event for event in agent.events if isinstance(event, Retry)]
        assert "429" in retries[0].reason


def test_a_service_that_stays_down_fails_the_attempt_with_its_reason(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int]
) -> None:
    environ = {"CLAUDE_CODE_MAX_RETRIES": "1"}
    with claude(tmp_path, stub, pair, "down", environ=environ) as agent:
        assert agent.wait()["exit_code"] == 1
        assert "500" in outcome(agent).reason


def test_an_agent_that_is_stopped_says_so_and_can_be_gone_on_with(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int]
) -> None:
    with claude(tmp_path, stub, pair, "hang") as agent:
        _until_hanging(agent, stub)
        agent.process.send_signal(signal.SIGTERM)
        facts = agent.wait()
        assert facts["ending"] == "stopped"
        assert outcome(agent).outcome is Outcome.INTERRUPTED
        resume_id = agent.progress.resume_id
    with claude(tmp_path, stub, pair, "resumed", resume_id=resume_id) as again:
        assert again.wait()["exit_code"] == 0, again.log
        assert again.progress.resume_id == resume_id
        # The conversation before is part of what the model is asked now.
        assert "echo begun > begun.txt" in stub.asked[-1].text
        assert git(again.worktree, "log", "--format=%s", "-1") == "Search"


def test_a_human_s_message_reaches_the_agent_at_its_next_turn(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int]
) -> None:
    with claude(tmp_path, stub, pair, "hang") as agent:
        _until_hanging(agent, stub)
        telling.tell(agent.run_folder, "Leave the page as it is. [script:resumed]")
        assert agent.wait()["exit_code"] == 0, agent.log
        told = [event.text for event in agent.events if isinstance(event, Told)]
        assert told == ["Leave the page as it is. [script:resumed]"]
        assert "told  Leave the page as it is." in agent.log
        assert "Leave the page as it is." in stub.asked[-1].text


def _until_hanging(agent: RunningAgent, stub: ModelStub) -> None:
    """Until the model has begun the answer that never ends."""

    def hangs() -> bool:
        return any(
            (asked.script, asked.step) == ("hang", 1) and str(agent.worktree) in asked.text
            for asked in list(stub.asked)
        )

    wait_until(hangs, seconds=30, what="the second step of the script")
