import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from autocoder.core.by_hand import describe_by_hand
from autocoder.core.errors import UsageError
from autocoder.core.events import EventLog, Finished, Outcome, Started
from autocoder.core.launcher import run_folder
from autocoder.core.models import Feature, PortPair
from autocoder.core.run_description import describe_run
from autocoder.core.settings import CommandBackend, LimitSettings, Settings
from autocoder.core.store import FeatureDraft, NewAgent, ProjectStore
from support.repositories import make_repository

FEATURE = Feature(7, "Search", "Find todos.", attempts=1, last_error="the tests failed")
PAIR = PortPair(5004, 5177, 1)


def record(backend: str, agent_id: str = "a-0002") -> NewAgent:
    return NewAgent(agent_id, PAIR.api_port, PAIR.web_port, PAIR.epoch, "feat/7-search", backend)


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every agent program there is, and a browser: none of them is started."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("codex", "gemini", "chromium", "playwright-mcp"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def described(
    project: Path, settings: Settings, backend: str = "", feature: Feature = FEATURE, **more: Any
) -> dict[str, Any]:
    return describe_run(
        project_dir=project,
        settings=settings,
        record=record(backend or settings.backend),
        feature=feature,
        pair=PAIR,
        worktree=project / "worktree",
        base="main",
        start_commit="c0ffee",
        pools=(),
        **more,
    )


def prompt(run: dict[str, Any]) -> str:
    return Path(run["prompt_file"]).read_text()


def test_an_agent_with_a_model_gets_the_feature_tools_and_a_browser_on_its_own_ports(
    tmp_path: Path,
) -> None:
    run = described(tmp_path, Settings(backend="claude", preset="cheap"))
    assert set(run["mcp_servers"]) == {"features", "playwright"}
    for server in run["mcp_servers"].values():
        assert server["env"]["AUTOCODER_API_PORT"] == "5004"
        assert server["env"]["AUTOCODER_WEB_URL"] == "http://localhost:5177"
        assert server["env"]["AUTOCODER_START_COMMIT"] == "c0ffee"
    assert run["model"] == "haiku"
    assert run["database"] == str(tmp_path / "agent_system.db")
    assert "http://localhost:5177" in prompt(run)
    assert "the tests failed" in prompt(run)


def test_yolo_is_a_shorter_prompt_without_a_browser(tmp_path: Path) -> None:
    careful = described(tmp_path, Settings(backend="claude"))
    careful_prompt = prompt(careful)
    quick = described(tmp_path, Settings(backend="claude", yolo=True))
    assert set(quick["mcp_servers"]) == {"features"}
    assert "one feature, quickly" in prompt(quick)
    assert len(prompt(quick)) < len(careful_prompt)


def test_the_limits_of_the_settings_reach_the_agent(tmp_path: Path) -> None:
    limits = LimitSettings(iterations=2, turns=30, budget_usd=1.5)
    run = described(tmp_path, Settings(backend="claude", limits=limits))
    assert (run["max_iterations"], run["turns"], run["budget_usd"]) == (2, 30, 1.5)


def test_a_features_own_backend_and_model_win_over_the_projects(tmp_path: Path) -> None:
    settings = Settings(backend="claude", model="opus")
    assert described(tmp_path, settings)["model"] == "opus"
    other = described(tmp_path, settings, "codex")
    assert other["command"][-3:-1] == ["--program", "codex"]
    # The project's model is one of the project's backend; another one has its own default.
    assert other["model"] == ""
    named = Feature(7, "Search", backend="codex", model="gpt-4.1")
    assert described(tmp_path, settings, "codex", named)["model"] == "gpt-4.1"


def test_an_own_command_is_told_by_its_placeholders_alone(tmp_path: Path) -> None:
    own = CommandBackend(("my-agent", "{model}", "{api_port}"))
    run = described(tmp_path, Settings(backend="mine", model="m", backends={"mine": own}))
    assert run["command"][-3:] == ["my-agent", "m", "5004"]
    assert "mcp_servers" not in run


def test_a_feature_whose_backend_is_not_here_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its feature: backend 'opencode' is not available"):
        described(tmp_path, Settings(backend="claude"), "opencode")


@pytest.mark.parametrize(
    ("before", "conversation", "resumed"),
    [("codex", "c-1", "c-1"), ("gemini", "c-1", ""), ("codex", "--last", "")],
)
def test_a_conversation_is_gone_on_with_by_the_same_backend_only(
    tmp_path: Path, before: str, conversation: str, resumed: str
) -> None:
    earlier = run_folder(tmp_path, "a-0001")
    earlier.mkdir(parents=True)
    log = EventLog(earlier)
    log.write(Started(before, "", conversation))
    log.write(Finished(Outcome.FAILED, "killed"))
    run = described(
        tmp_path, Settings(backend="codex"), goes_on_with=record(before, agent_id="a-0001")
    )
    assert run["resume_id"] == resumed
    assert described(tmp_path, Settings(backend="codex"))["resume_id"] == ""


def test_a_worker_started_by_hand_is_told_what_the_orchestrator_would_have_told_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/bin:/bin")
    project = make_repository(tmp_path / "todo")
    with closing(ProjectStore(project / "agent_system.db")) as store:
        store.add_features([FeatureDraft("Tags", "Typing narrows the list.")])
    argv = (
        *("--project-dir", str(project), "--worktree-path", str(project), "--agent-id", "hand-1"),
        *("--feature-id", "1", "--backend", "codex", "--api-port", "9999", "--web-port", "4000"),
    )
    environ = {"AUTOCODER_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db"}
    describe_by_hand([*argv, "--yolo", "--model", "gpt-4.1"], environ)
    run = json.loads((run_folder(project, "hand-1") / "run.json").read_text())
    assert run["model"] == "gpt-4.1"
    assert run["mcp_servers"]["features"]["env"]["AUTOCODER_WEB_PORT"] == "4000"
    assert "one feature, quickly" in prompt(run)
    assert "Typing narrows the list." in prompt(run)
