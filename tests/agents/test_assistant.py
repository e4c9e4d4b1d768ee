"""The assistant with the real SDK against the stub: tools, the selected agent's ports, memory."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from autocoder.core.assistant import FOLDER, Assistant, history
from autocoder.core.events import Event, Finished, Outcome, Text, ToolEnd
from autocoder.core.models import Agent, AgentState
from autocoder.core.settings import Settings
from autocoder.core.store import FeatureDraft, NewAgent, ProjectStore
from autocoder.tui.__main__ import _Assistance
from autocoder.tui.live_settings import LiveSettings
from support.agents import clean_environment
from support.commands import autocoder
from support.model_stub import Fail, Mcp, ModelStub, Say, Shell, Step
from support.panel import driven
from support.repositories import make_repository
from support.snapshots import a_snapshot

SCRIPTS: dict[str, Sequence[Step]] = {
    "ports": [Mcp("ports_get"), Mcp("feature_get_stats"), Say("It listens on its own ports.")],
    "change": [Shell("touch changed"), Mcp("Write", {"file_path": "x", "content": "y"})],
    "again": [Say("As I said before.")],
    "no-key": [Fail(401, "authentication_error")],
}
AGENT = Agent(
    agent_id="a-0001",
    state=AgentState.ACTIVE,
    feature_id=1,
    feature="Search",
    backend="claude",
    worktree_path="/nonexistent",
    api_port=5041,
    web_port=5199,
)


@pytest.fixture(scope="module")
def stub() -> Iterator[ModelStub]:
    opened = ModelStub(SCRIPTS)
    yield opened
    opened.close()


@pytest.fixture
def project(tmp_path: Path, stub: ModelStub, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in clean_environment(tmp_path / "home", stub).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLAUDE_CODE_MAX_RETRIES", "1")
    folder = make_repository(tmp_path / "todo")
    store = ProjectStore(folder / "agent_system.db")
    store.add_features([FeatureDraft("Search"), FeatureDraft("Export")])
    assert store.claim(1, NewAgent("a-0001", 5041, 5199, 1, "feat/1", "claude"))
    store.close()
    return folder


async def asked(assistant: Assistant, text: str) -> list[Event]:
    try:
        return [event async for event in assistant.ask(text)]
    finally:
        await assistant.close()


def ends(events: list[Event]) -> list[ToolEnd]:
    return [event for event in events if isinstance(event, ToolEnd)]


async def test_the_assistant_knows_the_backlog_and_the_selected_agents_ports(
    project: Path, stub: ModelStub
) -> None:
    assistant = Assistant(project, Settings(), AGENT)
    events = await asked(assistant, "Where is its app? [script:ports]")
    ports, stats = ends(events)
    answer = json.loads(ports.detail)
    assert (answer["agent_id"], answer["api_port"], answer["web_port"]) == ("a-0001", 5041, 5199)
    assert json.loads(stats.detail)["total"] == 2
    assert events[-1] == Finished(Outcome.SUCCESS)
    assert "".join(e.text for e in events if isinstance(e, Text)) == "It listens on its own ports."
    assert "http://localhost:5199" in json.dumps(stub.asked[-1].body["system"])
    assert assistant.cost_usd > 0


async def test_it_changes_no_file(project: Path) -> None:
    events = await asked(Assistant(project, Settings()), "Change it. [script:change]")
    assert not any(end.ok for end in ends(events))
    names = {path.name for path in project.iterdir()}
    assert {name for name in names if not name.startswith((".", "agent_system"))} == {"README.md"}


async def test_the_conversation_is_gone_on_with_the_next_time(
    project: Path, stub: ModelStub
) -> None:
    await asked(Assistant(project, Settings(), AGENT), "The word is plum. [script:again]")
    await asked(Assistant(project, Settings()), "Which word? [script:again]")
    assert "The word is plum." in stub.asked[-1].text
    said = history(project)
    assert [(part.by, part.about) for part in said] == [
        ("human", "a-0001"),
        ("assistant", "a-0001"),
        ("human", ""),
        ("assistant", ""),
    ]
    assert len({part.conversation for part in said[1:]}) == 1
    assert said[-1].cost_usd > 0


async def test_a_conversation_whose_memory_is_gone_begins_anew(project: Path) -> None:
    (project / FOLDER).mkdir(parents=True)
    with (project / FOLDER / "history.jsonl").open("a") as file:
        file.write('{"at": 1, "by": "human", "text": "x", "conversation": "')
        file.write('00000000-0000-4000-8000-000000000000"}\n{"cut sh')
    events = await asked(Assistant(project, Settings()), "Two. [script:again]")
    assert events[-1] == Finished(Outcome.SUCCESS)
    assert "Two." in history(project)[-2].text


async def test_a_wrong_key_is_said_and_not_called_an_answer(project: Path) -> None:
    events = await asked(Assistant(project, Settings(), new=True), "Well? [script:no-key]")
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.outcome is Outcome.FAILED
    assert "401" in finished.reason


def test_the_command_line_prints_the_answer_and_fails_with_its_reason(project: Path) -> None:
    told = autocoder("chat", "-C", project, "--agent", "a-0001", "Where is it? [script:ports]")
    assert told.code == 0, told
    assert told.out.splitlines()[-1] == "It listens on its own ports."
    assert "[mcp__features__ports_get]" in told.out
    unknown = autocoder("chat", "-C", project, "--agent", "a-0009", "Well?")
    assert (unknown.code, "a-0009" in unknown.err) == (2, True)


async def test_the_panel_shows_its_tools_and_its_answer_and_what_was_said_the_next_time(
    project: Path, stub: ModelStub
) -> None:
    assistance = _Assistance(project, LiveSettings(Settings(), Settings))
    async with driven(a_snapshot(AGENT), assistance=assistance) as run:
        await run.press("a")
        await run.shows("about a-0001  Search   api 5041  web 5199")
        await run.type("Where is its app? [script:ports]")
        await run.press("enter")
        await run.shows("◍ answering")
        await run.shows("It listens on its own ports.", seconds=40)
        await run.until(lambda: "answering" not in run.screen, seconds=40)
        assert "ports_get" in run.screen
        assert re.search(r"5199   \$\d", run.screen)
        await run.press("escape")
        await run.shows("? help")
        await run.press("a")
        await run.shows("▶ Where is its app?")
        await run.shows("It listens on its own ports.")
