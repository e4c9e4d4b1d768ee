"""The feature server through the SDK's own client: in process, and as a real program on stdio."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import TextContent

from autocoder.core.mcp_server import Caller, feature_server
from autocoder.core.mcp_servers import ServedAgent, mcp_servers
from autocoder.core.models import FeatureStatus
from autocoder.core.probe import local_kernel
from autocoder.core.store import FeatureDraft, Finished, NewAgent, ProjectStore
from support.repositories import commit, git, make_repository, write
from support.sockets import listen
from support.waiting import wait_until

PREDECESSOR_TOOLS = {
    "feature_get_stats": set(),
    "feature_get_next": set(),
    "feature_claim_next": {"agent_id"},
    "feature_get_for_regression": {"limit"},
    "feature_get_all": set(),
    "feature_get_by_id": {"feature_id"},
    "feature_mark_passing": {"feature_id"},
    "feature_report_regression": {
        *("regression_of_id", "summary", "details", "steps"),
        *("priority", "enabled", "artifact_path", "error_key"),
    },
    "feature_mark_in_progress": {"feature_id"},
    "feature_skip": {"feature_id"},
    "feature_clear_in_progress": {"feature_id"},
    "feature_create_bulk": {"features"},
    "feature_update": {"feature_id", "category", "name", "description", "steps", "priority"},
    "feature_delete": {"feature_id"},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProjectStore]:
    opened = ProjectStore(tmp_path / "agent_system.db")
    opened.add_features(
        [
            FeatureDraft("Low", priority=1),
            FeatureDraft("High", "Most urgent.", ("see it",), priority=9),
            FeatureDraft("Later", depends_on=("High",), priority=99),
        ]
    )
    yield opened
    opened.close()


def claimed(store: ProjectStore, feature_id: int, agent_id: str = "a-0001") -> None:
    agent = NewAgent(agent_id, 5001, 5174, 1, f"feat/{feature_id}", "claude")
    assert store.claim(feature_id, agent)


class Tools:
    """Calls tools and reads their JSON."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __call__(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        text, is_error = await self.text(name, **arguments)
        assert not is_error, text
        answer: dict[str, Any] = json.loads(text)
        return answer

    async def refused(self, name: str, /, **arguments: Any) -> str:
        text, is_error = await self.text(name, **arguments)
        assert is_error, text
        return text

    async def text(self, name: str, /, **arguments: Any) -> tuple[str, bool]:
        result = await self._client.call_tool(name, arguments)
        content = result.content[0]
        assert isinstance(content, TextContent)
        return content.text, bool(result.is_error)


@asynccontextmanager
async def tools(
    store: ProjectStore, caller: Caller | None = None, project: Path = Path()
) -> AsyncIterator[Tools]:
    server = feature_server(store, caller or Caller(), local_kernel(), project)
    async with Client(server) as client:
        yield Tools(client)


AGENT = Caller(agent_id="a-0001", feature_id=2, api_port=5001, web_port=5174)


async def test_every_tool_of_the_predecessor_has_its_name_and_arguments(
    store: ProjectStore,
) -> None:
    async with Client(feature_server(store, Caller(), local_kernel(), Path())) as client:
        listed = (await client.list_tools()).tools
    found = {tool.name: set(tool.input_schema["properties"]) for tool in listed}
    assert found.pop("ports_get") == {"agent_id"}
    assert found.pop("detect_stack_and_suggest_ports") == set()
    assert found == PREDECESSOR_TOOLS
    assert all(tool.description for tool in listed)


async def test_a_higher_priority_number_comes_first_everywhere(store: ProjectStore) -> None:
    async with tools(store) as call:
        assert (await call("feature_get_next"))["name"] == "High"
        every = (await call("feature_get_all"))["features"]
        assert [feature["name"] for feature in every] == ["Later", "High", "Low"]
        assert (await call("feature_claim_next", agent_id="me"))["feature"]["name"] == "High"


async def test_the_figures_of_the_project(store: ProjectStore) -> None:
    store.add_features([FeatureDraft("Staged", enabled=False)])
    store.settle_feature(2, Finished("feat/2", merged=True))
    claimed(store, 1)
    async with tools(store) as call:
        assert await call("feature_get_stats") == {
            "passing": 1,
            "in_progress": 1,
            "pending": 1,
            "staged": 1,
            "blocked": 0,
            "total": 4,
            "percentage": 25.0,
        }


async def test_claiming_takes_each_feature_once_and_skips_what_waits(store: ProjectStore) -> None:
    async with tools(store) as call:
        names = [
            (await call("feature_claim_next", agent_id="me"))["feature"]["name"] for _ in range(2)
        ]
        assert names == ["High", "Low"]
        assert (await call("feature_claim_next", agent_id="me"))["success"] is False


async def test_features_are_created_with_their_dependencies_or_not_at_all(
    store: ProjectStore,
) -> None:
    first = {"category": "api", "name": "One", "description": "", "steps": ["a"], "priority": 5}
    second = {"category": "ui", "name": "Two", "description": "", "steps": []}
    async with tools(store) as call:
        both = [first, second | {"depends_on": ["One", 1]}]
        made = await call("feature_create_bulk", features=both)
        one, two = made["features"]
        assert two["depends_on"] == sorted([1, one["id"]])
        broken = [first | {"name": "Three"}, second | {"depends_on": ["Nowhere"]}]
        assert "Nowhere" in await call.refused("feature_create_bulk", features=broken)
        assert (await call("feature_get_stats"))["total"] == 5


@pytest.mark.parametrize(
    "tool",
    [
        "feature_mark_passing",
        "feature_mark_in_progress",
        "feature_skip",
        "feature_clear_in_progress",
        "feature_update",
        "feature_delete",
    ],
)
async def test_an_agent_changes_only_its_own_feature(store: ProjectStore, tool: str) -> None:
    claimed(store, 2)
    before = store.features()
    async with tools(store, AGENT) as call:
        why = await call.refused(tool, feature_id=1)
    assert "feature 1 is not yours" in why
    assert store.features() == before


async def test_an_agent_works_on_the_feature_it_was_given(store: ProjectStore) -> None:
    claimed(store, 2)
    async with tools(store, AGENT) as call:
        assert (await call("feature_get_next"))["id"] == 2
        assert (await call("feature_claim_next", agent_id="a-0009"))["feature"]["id"] == 2
        assert (await call("feature_mark_in_progress", feature_id=2))["success"]
        updated = await call("feature_update", feature_id=2, description="More exactly.")
        assert updated["feature"]["description"] == "More exactly."
        assert updated["feature"]["steps"] == ["see it"]
        assert "works on feature 2" in await call.refused("feature_delete", feature_id=2)
        assert "when you end" in await call.refused("feature_clear_in_progress", feature_id=2)


async def test_a_feature_taken_over_is_no_longer_the_former_agents(store: ProjectStore) -> None:
    claimed(store, 2, agent_id="a-0002")
    async with tools(store, AGENT) as call:
        why = await call.refused("feature_mark_passing", feature_id=2)
    assert "was given to agent a-0002" in why


async def test_an_agent_commits_before_it_submits(store: ProjectStore, tmp_path: Path) -> None:
    worktree = make_repository(tmp_path / "worktree")
    start = git(worktree, "rev-parse", "HEAD")
    claimed(store, 2)
    caller = Caller("a-0001", 2, 5001, 5174, worktree, start)
    async with tools(store, caller) as call:
        assert "no commit" in await call.refused("feature_mark_passing", feature_id=2)
        write(worktree, {"new file.txt": "x"})
        why = await call.refused("feature_mark_passing", feature_id=2)
        assert "1 files are not committed (new file.txt)" in why
        commit(worktree)
        assert (await call("feature_mark_passing", feature_id=2))["success"]
    # Whether it is done is for the orchestrator to say, when the agent has ended.
    assert store.feature(2).status is FeatureStatus.IN_PROGRESS
    assert [event.event_type for event in store.events(5)] == ["feature_submitted"]


async def test_a_human_marks_passing_gives_back_skips_and_deletes(store: ProjectStore) -> None:
    async with tools(store) as call:
        assert (await call("feature_mark_in_progress", feature_id=2))["feature"]["in_progress"]
        assert "cannot be begun" in await call.refused("feature_mark_in_progress", feature_id=3)
        given_back = await call("feature_clear_in_progress", feature_id=2)
        assert given_back["feature"]["status"] == "PENDING"
        assert (await call("feature_skip", feature_id=2))["feature"]["priority"] == 0
        assert "depend on feature 2: 3" in await call.refused("feature_delete", feature_id=2)
        assert (await call("feature_mark_passing", feature_id=2))["feature"]["passes"]
        assert (await call("feature_get_next"))["name"] == "Later"
        assert (await call("feature_delete", feature_id=3))["deleted"] == 3
        assert "there is no feature 3" in await call.refused("feature_get_by_id", feature_id=3)


async def test_a_feature_with_a_live_agent_is_not_marked_by_hand(store: ProjectStore) -> None:
    claimed(store, 2)
    async with tools(store) as call:
        assert "a-0001" in await call.refused("feature_mark_passing", feature_id=2)
        assert "a-0001" in await call.refused("feature_clear_in_progress", feature_id=2)


async def test_a_regression_is_added_once_for_one_error(store: ProjectStore) -> None:
    store.settle_feature(2, Finished("feat/2", merged=True))
    async with tools(store, Caller("a-0001", 1)) as call:
        report = {"regression_of_id": 2, "summary": "It is gone", "error_key": "404"}
        first = await call("feature_report_regression", **report)
        again = await call("feature_report_regression", **report)
        assert (first["created"], again["created"]) == (True, False)
        assert first["feature"]["id"] == again["feature"]["id"]
        assert first["feature"]["priority"] == 100
        assert first["feature"]["steps"] == ["see it"]
        passing = await call("feature_get_for_regression", limit=5)
        assert [feature["id"] for feature in passing["features"]] == [2]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("feature_get_by_id", {"feature_id": "seven"}),
        ("feature_get_by_id", {}),
        ("feature_get_for_regression", {"limit": 0}),
        ("feature_create_bulk", {"features": []}),
        ("feature_create_bulk", {"features": [{"name": "x"}]}),
        ("feature_update", {"feature_id": 1, "name": "  "}),
        ("feature_nonsense", {}),
    ],
)
async def test_wrong_arguments_are_told_and_change_nothing(
    store: ProjectStore, tool: str, arguments: dict[str, Any]
) -> None:
    before = store.features()
    async with tools(store) as call:
        assert await call.refused(tool, **arguments)
    assert store.features() == before


async def test_an_agent_learns_its_pair_and_who_listens_there(
    store: ProjectStore, pair: tuple[int, int]
) -> None:
    api, web = pair
    child = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(api)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: local_kernel().listeners().get(api), what="the server listens")
        claimed(store, 2)
        store.set_worker("a-0001", pid=os.getpid(), pid_start=1, boot_id="", create_time=0.0)
        with listen(web):
            async with tools(store, Caller("a-0001", 2, api, web)) as call:
                answer = await call("ports_get")
    finally:
        child.kill()
        child.wait()
    assert (answer["api_port"], answer["web_port"]) == pair
    assert answer["web_url"] == f"http://localhost:{web}"
    assert [(found["pid"], found["own"]) for found in answer["listeners"]["api"]] == [
        (child.pid, True)
    ]
    # The test itself listens: it is the worker here, and no child of it.
    assert [found["own"] for found in answer["listeners"]["web"]] == [False]


async def test_the_ports_of_another_agent_are_that_agents(store: ProjectStore) -> None:
    claimed(store, 2)
    async with tools(store, Caller(api_port=5050, web_port=5222)) as call:
        assert (await call("ports_get", agent_id="a-0001"))["api_port"] == 5001
        assert (await call("ports_get"))["api_port"] == 5050
        assert "Live: a-0001" in await call.refused("ports_get", agent_id="a-0007")


async def test_the_stack_is_looked_for_in_the_agents_worktree(
    store: ProjectStore, tmp_path: Path
) -> None:
    worktree = tmp_path / "worktree"
    write(worktree, {"go.mod": "module x\n", "main.go": 'import "net/http"'})
    async with tools(store, Caller("a-0001", 2, 5001, 5174, worktree), tmp_path) as call:
        answer = await call("detect_stack_and_suggest_ports")
    assert answer["stack"] == "go"
    assert answer["servers"][0]["port"] == 5001


@pytest.fixture
def served(tmp_path: Path, store: ProjectStore) -> Callable[..., ServedAgent]:
    def make(**changes: Any) -> ServedAgent:
        known: dict[str, Any] = {
            "project_dir": tmp_path,
            "database": store.path,
            "run_folder": tmp_path,
            "agent_id": "a-0001",
            "feature_id": 2,
            "api_port": 5001,
            "web_port": 5174,
        }
        return ServedAgent(**(known | changes))

    return make


async def test_the_server_answers_on_stdio_whatever_environment_its_client_gives_it(
    store: ProjectStore, served: Callable[..., ServedAgent], tmp_path: Path
) -> None:
    claimed(store, 2)
    entry = mcp_servers(served(), browser=False)["features"]
    worktree = make_repository(tmp_path / "worktree", {"autocoder/__init__.py": "raise Exception"})
    parameters = StdioServerParameters(
        command=entry["command"], args=entry["args"], env=entry["env"], cwd=worktree
    )
    async with Client(stdio_client(parameters)) as client:
        call = Tools(client)
        ports = await call("ports_get")
        assert (ports["agent_id"], ports["api_port"], ports["web_port"]) == ("a-0001", 5001, 5174)
        assert (await call("feature_get_next"))["name"] == "High"
        assert "not yours" in await call.refused("feature_skip", feature_id=1)


def test_every_server_of_an_agent_gets_the_same_ports(served: Callable[..., ServedAgent]) -> None:
    servers = mcp_servers(served())
    assert {entry["env"]["AUTOCODER_WEB_PORT"] for entry in servers.values()} == {"5174"}
    assert {entry["env"]["AUTOCODER_API_PORT"] for entry in servers.values()} == {"5001"}


def test_the_browser_knows_the_agents_page_and_keeps_out_of_the_worktree(
    served: Callable[..., ServedAgent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    write(programs, {"chromium": "", "npx": ""})
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    entry = mcp_servers(served())["playwright"]
    assert entry["command"] == str(programs / "npx")
    settings = json.loads(Path(entry["args"][-1]).read_text())
    assert settings["browser"]["contextOptions"]["baseURL"] == "http://localhost:5174"
    assert settings["browser"]["isolated"] is True
    assert settings["browser"]["launchOptions"]["executablePath"] == str(programs / "chromium")
    assert "http://localhost:5001" in settings["network"]["allowedOrigins"]
    assert not any(":5000" in origin for origin in settings["network"]["allowedOrigins"])
    assert settings["outputDir"].startswith(str(tmp_path))
    (programs / "chromium").unlink()
    assert set(mcp_servers(served())) == {"features"}
