"""How the screens look, as pictures: a change shows up as a difference to look at."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from autocoder.core.assistant import Said
from autocoder.core.events import Text, ToolStart
from autocoder.core.models import (
    Agent,
    Feature,
    FeatureStatus,
    RecoveryPlan,
    Severity,
    Snapshot,
    WorktreeStatus,
)
from autocoder.core.questions import Details, PastEvent, ProcessLine, SettingValue
from autocoder.tui.app import Departure, Panel
from support.answers import Answers
from support.assistance import ScriptedAssistance
from support.fake_engine import RecordingEngine
from support.panel import Driven
from support.snapshots import NOW, a_busy_project, an_empty_project

Look = Callable[..., bool]


@pytest.fixture
def busy(tmp_path: Path) -> Snapshot:
    snapshot = a_busy_project(tmp_path)
    for agent in snapshot.agents:
        path = Path(agent.log_path)
        path.parent.mkdir(parents=True)
        path.write_text(LOG)
    return snapshot


@pytest.fixture
def look(snap_compare: Callable[..., bool]) -> Iterator[Look]:
    """Compare a panel that shows a snapshot, after some keys, with its picture."""
    panels: list[Panel] = []

    def compare(
        snapshot: Snapshot,
        *keys: str,
        size: tuple[int, int] = (140, 40),
        waits_for: str = "",
        then: str = "",
        assistance: ScriptedAssistance | None = None,
        theme: str = "",
    ) -> bool:
        engine = RecordingEngine(snapshot)
        panel = Panel(
            lambda: engine,
            "todo-app",
            open_questions=Looked,
            assistance=assistance,
            clock=lambda: NOW,
        )
        panels.append(panel)

        async def prepare(pilot: Pilot[Departure]) -> None:
            run = Driven(panel, engine, pilot)
            await run.until(lambda: panel.snapshot is not None)
            if theme:
                panel.theme = theme
            if waits_for:
                await run.shows(waits_for)
            await run.press(*keys)
            if then:
                await run.shows(then)

        return snap_compare(panel, terminal_size=size, run_before=prepare)

    yield compare
    for panel in panels:
        panel.stop_engine()


def test_a_busy_afternoon(look: Look, busy: Snapshot) -> None:
    assert look(busy, "j", waits_for="14 passed")


def test_a_large_terminal(look: Look, busy: Snapshot) -> None:
    assert look(busy, "j", "j", size=(200, 60), waits_for="14 passed")


def test_a_small_terminal(look: Look, busy: Snapshot) -> None:
    assert look(busy, "j", size=(80, 24))


def test_the_log_on_a_small_terminal(look: Look, busy: Snapshot) -> None:
    assert look(busy, "j", "enter", "w", size=(80, 24))


def test_a_light_theme(look: Look, busy: Snapshot) -> None:
    assert look(busy, "j", waits_for="14 passed", theme="day")


def test_the_terminals_own_colours(look: Look, busy: Snapshot) -> None:
    assert look(busy, "j", waits_for="14 passed", theme="terminal")


def test_no_colour(look: Look, busy: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert look(busy, "j", waits_for="14 passed")


def test_an_empty_project(look: Look) -> None:
    assert look(an_empty_project(), size=(110, 34))


def test_a_question_before_a_kill(look: Look, busy: Snapshot) -> None:
    assert look(busy, "j", "j", "X", size=(110, 34), waits_for="14 passed")


def test_the_question_before_leaving_nothing_behind(look: Look, busy: Snapshot) -> None:
    assert look(busy, "Q", size=(110, 34), waits_for="14 passed")


def test_extending_the_pools(look: Look, busy: Snapshot) -> None:
    assert look(busy, "e", size=(110, 34), waits_for="14 passed", then="free now")


def test_help(look: Look, busy: Snapshot) -> None:
    assert look(replace(busy, notices=()), "question_mark", size=(110, 40), waits_for="14 passed")


def test_a_filter(look: Look, busy: Snapshot) -> None:
    keys = [*"/state:act", "enter"]
    assert look(busy, *keys, size=(110, 34), waits_for="14 passed")


def test_the_wall(look: Look, busy: Snapshot) -> None:
    assert look(busy, "v", size=(160, 44), waits_for="14 passed")


def test_the_backlog(look: Look, busy: Snapshot) -> None:
    assert look(busy, "F", "j", size=(120, 24))


def test_the_ports(look: Look, busy: Snapshot) -> None:
    assert look(busy, "P", "j", size=(140, 36))


def test_the_ports_on_a_small_terminal(look: Look, busy: Snapshot) -> None:
    assert look(busy, "P", size=(80, 24))


def test_the_worktrees(look: Look, busy: Snapshot) -> None:
    assert look(busy, "W", "j", size=(120, 24), then="2 ticked")


def test_a_message_to_an_agent(look: Look, busy: Snapshot) -> None:
    keys = ("t", *"Use", "ctrl+j", *"sqlite")
    assert look(busy, *keys, size=(110, 34), waits_for="14 passed")


def test_the_assistant(look: Look, busy: Snapshot) -> None:
    answer = (
        ToolStart("1", "Grep", "EADDRINUSE in .autocoder/agents/a-0f33/log"),
        Text("The web server of a-0f33 was started on 5175, but another program listens there: "),
        Text("pid 31870, node, of user 1002.\n\nMove the agent to another pair with r."),
    )
    said = (Said(NOW - 60, "human", "What is left?"), Said(NOW - 50, "assistant", "17 features."))
    assistance = ScriptedAssistance(*answer, said=said)
    keys = ("a", *"why?", "enter")
    assert look(busy, *keys, size=(110, 34), then="$0.42", assistance=assistance)


@pytest.fixture
def busy_at_home() -> Snapshot:
    """With logs that are nowhere, but whose names are the same every time."""
    return a_busy_project(Path("/home/dev/todo-app/.autocoder/agents"))


def test_the_details_of_an_agent(look: Look, busy_at_home: Snapshot) -> None:
    assert look(busy_at_home, "j", "j", "j", "i", then="Prompt")


def test_the_details_on_a_small_terminal(look: Look, busy_at_home: Snapshot) -> None:
    assert look(busy_at_home, "j", "j", "j", "i", size=(80, 24), then="Processes")


def test_a_diff(look: Look, busy: Snapshot) -> None:
    keys = ("j", "j", "j", "d")
    assert look(busy, *keys, size=(120, 34), waits_for="14 passed", then="+def overdue")


def test_the_events(look: Look, busy: Snapshot) -> None:
    assert look(busy, "H", size=(110, 34), waits_for="14 passed", then="Monday")


def test_the_settings(look: Look, busy: Snapshot) -> None:
    assert look(busy, "comma", size=(110, 34), waits_for="14 passed", then="parallel")


def test_the_urls(look: Look, busy_at_home: Snapshot) -> None:
    assert look(busy_at_home, "space", "space", "o", size=(110, 34), then="urls")


def test_the_palette(look: Look, busy: Snapshot) -> None:
    keys = ("colon", *"export")
    assert look(busy, *keys, size=(110, 34), waits_for="14 passed", then="Go to feature")


def test_a_question_before_a_merge(look: Look, busy: Snapshot) -> None:
    agent = busy.agents[1]
    ready = [
        Feature(
            agent.feature_id,
            agent.feature,
            status=FeatureStatus.DONE,
            branch_name=agent.branch,
            review_status="READY_FOR_VERIFICATION",
            variant_of=2,
        )
    ]
    merging = replace(busy, backlog=(*ready, *busy.backlog))
    assert look(merging, "asterisk", "m", size=(110, 34), waits_for="14 passed")


def test_problems_only(look: Look, busy: Snapshot) -> None:
    assert look(busy, "exclamation_mark", size=(120, 32), waits_for="14 passed")


def test_marks_and_order(look: Look, busy: Snapshot) -> None:
    keys = ("space", "j", "space", "s", "s", "S")
    assert look(busy, *keys, size=(120, 32), waits_for="14 passed")


def test_a_typed_feature(look: Look, busy: Snapshot) -> None:
    keys = ("N", *"Fix")
    assert look(busy, *keys, size=(110, 34), waits_for="14 passed", then="5014 and 5183")


def test_a_recovery(look: Look, busy: Snapshot) -> None:
    plan = RecoveryPlan(("a-0f31",), ("a-0f3b",), (5009, 5182), (16, 17, 18, 19))
    assert look(replace(busy, recovery=plan), "R", size=(110, 34), waits_for="14 passed")


def test_all_notices(look: Look, busy: Snapshot) -> None:
    assert look(busy, "M", size=(110, 34), waits_for="14 passed")


def test_a_search_in_a_log(look: Look, busy: Snapshot) -> None:
    keys = ("enter", "slash", *"passed", "enter")
    assert look(busy, *keys, size=(110, 34), waits_for="14 passed", then="100 % of")


def test_a_terminal_that_is_too_small(look: Look, busy: Snapshot) -> None:
    assert look(busy, size=(40, 10))


def a_tree(
    name: str, size: int, dirty: int = 0, *, merged: bool = True, in_use: bool = False
) -> WorktreeStatus:
    branch = f"feat/{name[-2:]}-of-it"
    return WorktreeStatus(name, f"/w/{name}", branch, size, dirty, merged, in_use)


TREES = (
    a_tree("a-0f3a", 48_210_000, in_use=True),
    a_tree("a-0f3b", 31_400_000, 5, merged=False),
    a_tree("a-0f3c", 29_800_000),
    a_tree("a-0f3d", 30_100_000, merged=False),
    a_tree("a-0f3e", 912_000_000),
)


class Looked(Answers):
    """What a person sees who looks closer on that afternoon."""

    def __init__(self) -> None:
        super().__init__(*TREES)

    def details(self, agent: Agent) -> Details:
        processes = (
            ProcessLine(48222, 0, "python agent_worker.py --agent-id a-0f32", "S", 11_000_000, 0.4),
            ProcessLine(
                48231, 1, "claude --print --output-format stream-json", "S", 190_000_000, 31.0
            ),
            ProcessLine(48260, 2, "python -m api", "S", 42_000_000, 1.5),
            ProcessLine(48262, 2, "node web/server.js", "R", 88_000_000, 2.75),
        )
        environment = (
            ("ANTHROPIC_API_KEY", ""),
            ("API_PORT", "5001"),
            ("AUTOCODER_API_URL", "http://localhost:5001"),
            ("PATH", ""),
            ("SSH_AUTH_SOCK", ""),
            ("WEB_PORT", "5174"),
        )
        changed = ("api/due.py", "tests/test_due.py", "web/due.js")
        prompt = "Give a todo a date it is due on, and show those that are overdue first."
        return Details(processes, environment, (), changed, prompt)

    def diff(self, agent: Agent) -> str:
        return DIFF

    def events(self, limit: int) -> tuple[PastEvent, ...]:
        def event(before: float, text: str, who: str = "", kind: str = "notice") -> PastEvent:
            severity = Severity.WARNING if "5175" in text else Severity.INFO
            return PastEvent(NOW - before, severity, kind, text, who, None)

        merged = "completed: Filter by owner: merged 3 commits into main, verified by make test in "
        merged += "41s; its app was at http://localhost:5183 (API http://localhost:5010)"
        return (
            event(86_400, "pool api at 90% capacity, expanded range 5273-5373"),
            event(900, "on feature 2", "a-0f32", "spawned"),
            event(400, merged, "a-0f3d"),
            event(90, 'web 5175: listener is pid 31870 "node" of user 1002', "a-0f33"),
        )

    def settings(self) -> tuple[SettingValue, ...]:
        return (
            SettingValue("parallel", "9", "$AUTOCODER_PARALLEL", "agents that run at once"),
            SettingValue("backend", "claude", "autocoder.toml", "the program that works"),
            SettingValue("base", "", "default", "branch that features start from and merge into"),
            SettingValue(
                "ledger_url",
                "sqlite:////var/lib/autocoder/ledger.db",
                "/home/dev/.config/autocoder/config.toml",
                "sqlite:/// URL of the host ledger",
            ),
            SettingValue(
                "ports.address",
                "",
                "default",
                "lease from the [[pools]] of this address; empty: from the pools api and web, "
                "which belong to every address",
            ),
        )


DIFF = """\
diff --git a/api/todos.py b/api/todos.py
index 3f1c2aa..9be0c11 100644
--- a/api/todos.py
+++ b/api/todos.py
@@ -12,7 +12,9 @@ class Todo:
     id: int
     title: str
-    done: bool
+    done: bool = False
+    due: date | None = None

diff --git a/api/due.py b/api/due.py
new file, not yet added
+from datetime import date
+
+
+def overdue(todos, today):
+    return [todo for todo in todos if todo.due and todo.due < today and not todo.done]
"""
LOG = """\
\x1b[90m14:12:48\x1b[0m  \x1b[36mtool\x1b[0m  Edit  api/search.py
\x1b[90m14:12:50\x1b[0m  \x1b[36mtool\x1b[0m  Bash  PORT=$AUTOCODER_API_PORT python -m api &
\x1b[90m14:12:52\x1b[0m  \x1b[36mtool\x1b[0m  Bash  pytest -q
          \x1b[32m14 passed\x1b[0m in 1.02s
\x1b[90m14:12:55\x1b[0m  \x1b[35mtext\x1b[0m  All reminder tests pass; wiring the web page next. A \
line that is longer than most terminals are wide, so that one sees where it is cut or how it \
is wrapped.
"""
