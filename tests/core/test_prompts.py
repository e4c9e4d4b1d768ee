import re
from pathlib import Path

import pytest

from autocoder.core.errors import UsageError
from autocoder.core.models import PortRange
from autocoder.core.policy import Scope, refusal
from autocoder.core.prompts import OVERRIDES, SHIPPED, TEMPLATES, render_prompt

VALUES = {
    "agent_id": "a-0f31",
    "feature_id": 7,
    "feature_name": "Search todos by tag",
    "feature_description": "Typing part of a tag narrows the list.",
    "feature_steps": "- type\n- look",
    "last_error": "",
    "base": "main",
    "worktree": "/home/ada/todo-worktrees/a-0f31",
    "api_port": 5041,
    "web_port": 5199,
    "project": "todo",
    "app_spec": "A todo list.",
    "backlog_file": "backlog.json",
    "feature_count": 20,
}

WITH_PORTS = ("coding", "coding_yolo", "initializer", "assistant")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path


def override(project: Path, name: str, text: str) -> Path:
    path = project / OVERRIDES / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def shell_blocks(text: str) -> list[str]:
    return re.findall(r"(?ms)^```sh\n(.*?)^```", text)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_shipped_template_leaves_no_mark_unfilled(name: str, project: Path) -> None:
    assert "{{" not in render_prompt(name, VALUES, project)


@pytest.mark.parametrize("name", WITH_PORTS)
def test_the_port_rules_carry_the_real_ports(name: str, project: Path) -> None:
    rules = render_prompt(name, VALUES, project).split("## CRITICAL: DYNAMIC PORT CONFIGURATION")[1]
    assert "http://localhost:5041" in rules
    assert "http://localhost:5199" in rules


@pytest.mark.parametrize("name", ["coding", "coding_yolo", "initializer"])
def test_the_port_rules_stand_between_the_role_and_the_first_step(name: str, project: Path) -> None:
    headings = re.findall(r"(?m)^#+ .*$", render_prompt(name, VALUES, project))
    assert headings[1] == "## CRITICAL: DYNAMIC PORT CONFIGURATION"
    assert next(i for i, h in enumerate(headings) if h.startswith("## Step 1")) > 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_shipped_command_names_a_port(name: str, project: Path) -> None:
    text = (SHIPPED / f"{name}.md").read_text("utf-8") + (SHIPPED / "ports.md").read_text("utf-8")
    commands = shell_blocks(text) + re.findall(r"\| `([^`]+)`", text)
    assert commands
    for command in commands:
        assert not re.search(r"(?<![\w.])\d{4,5}\b", command), command


@pytest.mark.parametrize("name", ["coding", "coding_yolo", "initializer"])
def test_every_command_of_a_template_passes_the_command_policy(name: str, project: Path) -> None:
    text = render_prompt(name, VALUES, project)
    scope = Scope(
        api_port=5041,
        web_port=5199,
        pools=(PortRange(5000, 5100), PortRange(5173, 5273)),
        worktree=Path("/home/ada/todo-worktrees/a-0f31"),
        project_dir=Path("/home/ada/todo"),
        base="main",
        worktrees=Path("/home/ada/todo-worktrees"),
        own_folders=(Path("/tmp/a-0f31"),),
        variables={"HOME": "/home/ada", "TMPDIR": "/tmp/a-0f31"},
        is_own_process=lambda _: True,
    )
    commands = shell_blocks(text) + re.findall(r"(?m)^\| [\w., ]+ \| `([^`]+)`", text)
    assert len(commands) > 10
    assert {command: why for command in commands if (why := refusal(command, scope))} == {}


@pytest.mark.parametrize("name", ["coding", "coding_yolo", "initializer"])
def test_an_agent_commits_before_it_submits(name: str, project: Path) -> None:
    text = render_prompt(name, VALUES, project)
    assert text.index("\ngit commit -m") < text.index(
        "feature tools" if "coding" in name else "Finish"
    )


def test_the_strict_port_advice_names_every_stack(project: Path) -> None:
    text = render_prompt("coding", VALUES, project)
    assert "--strictPort" in text
    for stack in ("Node", "Vite", "Next", "FastAPI", "Flask", "Django", "Rust", "Go"):
        assert re.search(rf"(?m)^\| {stack}\b.*AUTOCODER_(API|WEB)_PORT", text), stack


def test_an_earlier_failure_is_told_only_where_there_was_one(project: Path) -> None:
    assert "earlier attempt" not in render_prompt("coding", VALUES, project)
    again = render_prompt("coding", VALUES | {"last_error": "tests fail: AssertionError"}, project)
    assert "tests fail: AssertionError" in again


def test_a_value_is_never_looked_through_for_marks(project: Path) -> None:
    hostile = VALUES | {"feature_name": "{{last_error}} {{>ports}} {{nonsense}}"}
    assert "**{{last_error}} {{>ports}} {{nonsense}}**" in render_prompt("coding", hostile, project)


def test_a_project_overrides_a_template_and_its_edits_count_at_once(project: Path) -> None:
    override(project, "coding", "Agent {{agent_id}}")
    assert render_prompt("coding", VALUES, project) == "Agent a-0f31"
    override(project, "coding", "You are {{agent_id}}")
    assert render_prompt("coding", VALUES, project) == "You are a-0f31"


def test_a_project_overrides_the_part_that_all_templates_share(project: Path) -> None:
    override(project, "ports", "Only {{api_port}} and {{web_port}}.\n")
    assert "Only 5041 and 5199." in render_prompt("coding_yolo", VALUES, project)


def test_an_unknown_placeholder_is_named_with_file_and_line(project: Path) -> None:
    path = override(project, "coding", "fine\n\n{{#last_error}}\n{{agent_port}}\n{{/last_error}}\n")
    with pytest.raises(UsageError) as raised:
        render_prompt("coding", VALUES, project)
    assert f"{path}:4: " in raised.value.message
    assert "'agent_port'" in raised.value.message
    assert "api_port" in raised.value.hint


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n{{#base}}open", 2),
        ("{{/base}}", 1),
        ("{{#base}}\n{{#agent_id}}\n{{/base}}{{/agent_id}}", 3),
        ("\n\n{{>coding}}", 3),
    ],
)
def test_marks_that_do_not_match_are_named_with_file_and_line(
    text: str, line: int, project: Path
) -> None:
    path = override(project, "coding", text)
    with pytest.raises(UsageError, match=re.escape(f"{path}:{line}: ")):
        render_prompt("coding", VALUES, project)


def test_braces_of_code_are_left_alone(project: Path) -> None:
    text = "style={{ color: x }} {{.GoField}} f'{port}' ${{ secrets.X }} {{}}"
    override(project, "coding", text)
    assert render_prompt("coding", VALUES, project) == text


def test_a_section_leaves_no_empty_lines_behind(project: Path) -> None:
    override(project, "coding", "a\n{{#last_error}}\nb {{last_error}}\n{{/last_error}}\nc\n")
    assert render_prompt("coding", VALUES, project) == "a\nc\n"
    assert render_prompt("coding", VALUES | {"last_error": "!"}, project) == "a\nb !\nc\n"


def test_an_unreadable_override_is_named(project: Path) -> None:
    path = override(project, "coding", "")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=re.escape(str(path))):
        render_prompt("coding", VALUES, project)


def test_an_unknown_template_is_refused(project: Path) -> None:
    with pytest.raises(UsageError, match="no prompt 'codign'"):
        render_prompt("codign", VALUES, project)
