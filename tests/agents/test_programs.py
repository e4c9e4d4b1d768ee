"""Real codex, opencode and gemini under real workers, against the stub of their services.

`make test-agents` installs them; they are not part of every commit's tests.
"""

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from autocoder.core import telling
from autocoder.core.events import Finished, Outcome, Text, Told, ToolEnd
from autocoder.core.settings import Settings
from support.agents import KEY, RunningAgent, running_agent
from support.model_stub import Fail, Hang, Mcp, ModelStub, Say, Shell, Step
from support.repositories import git, write
from support.waiting import wait_until

pytestmark = [pytest.mark.agents, pytest.mark.timeout(300)]

SERVE = """
(python3 -m http.server --bind 127.0.0.1 "$AUTOCODER_API_PORT" >"$TMPDIR/api.log" 2>&1 &)
while ! curl -sf "http://localhost:$PORT/README.md"; do sleep 0.1; done
echo "the API answers on $AUTOCODER_API_PORT"
"""
COMMIT = 'echo found > search.txt && git add -A && git commit -q -m "Search" && echo committed'

SCRIPTS: dict[str, Sequence[Step]] = {
    "work": [Mcp("ports_get"), Shell(SERVE), Shell(COMMIT), Say("Search works.")],
    "no-key": [Fail(401, "invalid_api_key")],
    "hang": [Shell("echo begun > begun.txt"), Hang()],
    "told": [Shell(COMMIT), Say("As you wish.")],
}
MODELS = {"codex": "gpt-4.1", "opencode": "stub/m", "gemini": "gemini-2.5-pro"}


@pytest.fixture(scope="module")
def stub() -> Iterator[ModelStub]:
    opened = ModelStub(SCRIPTS)
    yield opened
    opened.close()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Not below /tmp, where anybody may write: gemini reads no settings there."""
    parent = Path(__file__).parents[2] / "build"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="agents-", dir=parent) as folder:
        yield Path(folder)


@pytest.fixture(params=sorted(MODELS))
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: make test-agents")
    return name


def started(
    folder: Path, stub: ModelStub, pair: tuple[int, int], backend: str, script: str, **more: Any
) -> Any:
    """The agent, its program's own configuration pointing to the stub."""
    write(folder / "home", configuration(stub))
    settings = Settings(backend=backend, model=MODELS[backend])
    environ = {"OPENCODE_DISABLE_MODELS_FETCH": "1"}
    return running_agent(
        folder, stub, pair, settings=settings, script=script, environ=environ, **more
    )


def configuration(stub: ModelStub) -> Mapping[str, str]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{stub.url}/v1", "apiKey": KEY},
        "models": {"m": {"name": "m"}},
    }
    return {
        ".codex/config.toml": f"""
            model_provider = "stub"
            [model_providers.stub]
            name = "stub"
            base_url = "{stub.url}/v1"
            env_key = "OPENAI_API_KEY"
            wire_api = "responses"
            supports_websockets = false
            request_max_retries = 1
            stream_max_retries = 1
        """,
        ".config/opencode/opencode.json": json.dumps({"provider": {"stub": provider}}),
        ".gemini/settings.json": json.dumps(
            {"security": {"auth": {"selectedType": "gemini-api-key"}}}
        ),
    }


def test_a_feature_is_worked_on_from_its_ports_to_its_commit(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int], backend: str
) -> None:
    with started(tmp_path, stub, pair, backend, "work") as agent:
        facts = agent.wait(120)
        assert facts["exit_code"] == 0, agent.log
        ends = [event for event in agent.events if isinstance(event, ToolEnd)]
        said = "\n".join(event.detail for event in ends)
        assert f'"web_port": {pair[1]}' in said.replace("\\", ""), said
        assert f"the API answers on {pair[0]}" in said
        assert "Search works." in "".join(e.text for e in agent.events if isinstance(e, Text))
        assert git(agent.worktree, "log", "--format=%s", "-1") == "Search"
        assert sorted(facts["ports_free"]) == sorted(pair)
        assert agent.progress.outcome is Outcome.SUCCESS
        assert agent.progress.tokens > 0
        assert agent.progress.resume_id
        assert KEY not in agent.written()


def test_a_wrong_key_is_a_failure_whatever_the_program_ends_with(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int], backend: str
) -> None:
    with started(tmp_path, stub, pair, backend, "no-key") as agent:
        facts = agent.wait(120)
        assert facts["exit_code"] not in (0, None)
        finished = [event for event in agent.events if isinstance(event, Finished)][-1]
        assert finished.outcome is Outcome.FAILED
        assert "invalid_api_key" in finished.reason


def test_a_human_s_message_goes_on_in_the_same_conversation(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int], backend: str
) -> None:
    with started(tmp_path, stub, pair, backend, "hang") as agent:
        until_hanging(agent, stub)
        telling.tell(agent.run_folder, "Leave the page as it is. [script:told]")
        assert agent.wait(120)["exit_code"] == 0, agent.log
        assert any(isinstance(event, Told) for event in agent.events)
        assert "echo begun > begun.txt" in stub.asked[-1].text
        assert git(agent.worktree, "log", "--format=%s", "-1") == "Search"


def test_a_stopped_agent_leaves_nothing(
    tmp_path: Path, stub: ModelStub, pair: tuple[int, int], backend: str
) -> None:
    with started(tmp_path, stub, pair, backend, "hang") as agent:
        until_hanging(agent, stub)
        agent.process.send_signal(signal.SIGTERM)
        facts = agent.wait(60)
        assert facts["ending"] == "stopped"
        assert facts["survivors"] == 0
        assert sorted(facts["ports_free"]) == sorted(pair)
        assert agent.progress.outcome is Outcome.INTERRUPTED


def test_three_programs_side_by_side_keep_to_their_own_pairs(
    tmp_path: Path, stub: ModelStub, ports: range
) -> None:
    installed = [name for name in sorted(MODELS) if shutil.which(name)]
    if not installed:
        pytest.skip("none is installed: make test-agents")
    with ExitStack() as stack:
        agents: list[tuple[RunningAgent, tuple[int, int]]] = []
        for number, name in enumerate(installed):
            pair = (ports[2 * number], ports[2 * number + 1])
            agent = started(tmp_path / name, stub, pair, name, "work", agent_id=f"a-{number}")
            agents.append((stack.enter_context(agent), pair))
        for agent, pair in agents:
            assert agent.wait(180)["exit_code"] == 0, agent.log
            assert f"the API answers on {pair[0]}" in agent.log


def until_hanging(agent: RunningAgent, stub: ModelStub) -> None:
    def hangs() -> bool:
        return any(
            (asked.script, asked.step) == ("hang", 1) and str(agent.worktree) in asked.text
            for asked in list(stub.asked)
        )

    wait_until(hangs, seconds=90, what="the second step of the script")
