"""The orchestrator is killed at every step it takes; the next one finds nothing wrong.

Every write is a call of one of four collaborators, so the places before and after
these calls are all the places where an end can leave something half done.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core.commands import Command, KillAgent, RecoverAgent, StopAgent
from support.fleets import WAITS, Project
from support.repositories import git
from support.waiting import wait_until
from support.zygote import Zygote, zygote

SPAWN = ["allocator.lease", "store.claim", "repository.add", "launcher.start", "store.set_worker"]
SPAWN += ["allocator.confirm", "store.set_states"]
COMPLETE = ["launcher.facts", "repository.prepare_merge", "repository.land", "store.end_agent"]
COMPLETE += [
    "allocator.release",
    "repository.remove",
    "repository.delete_branch",
    "store.clear_worktrees",
]
END = ["launcher.facts", "store.end_agent", "allocator.release"]
RECOVER = [*END, "allocator.lease", "store.claim", "launcher.start", "store.set_worker"]


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Zygote]:
    with zygote(tmp_path) as started:
        yield started


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Iterator[Project]:
    project = Project(tmp_path, ports[:40], parallel=2, stop_when_done=True)
    yield project
    project.end_everything()
    wait_until(lambda: not project.processes(), what="the test's agents end")


def places(methods: list[str]) -> list[tuple[str, str]]:
    """Before the first call and after each: before the next is after the last."""
    return [(methods[0], "before"), *((method, "after") for method in methods)]


def run_to_the_end(project: Project, forking: Zygote) -> None:
    """Afterwards every feature is done once, nothing is left, and nobody paid for the crashes."""
    assert forking.start(project).wait(60) == 0, forking.errors()
    features = project.query("SELECT id, status, review_status, attempts FROM features")
    assert {row[1:] for row in features} == {("DONE", "VERIFIED", 0)}
    done = Counter(git(project.dir, "log", "--no-merges", "--format=%s", "main").splitlines())
    assert done == Counter(["Begin", *(f"Do feature {row[0]}" for row in features)])
    assert project.leftovers() == []
    assert forking.errors() == ""


@pytest.mark.parametrize("methods", [SPAWN, COMPLETE], ids=["spawn", "complete"])
def test_an_end_at_any_step_is_mended_by_the_next_orchestrator(
    project: Project, forking: Zygote, methods: list[str]
) -> None:
    project.add(*[""] * (len(places(methods)) + 2))
    for place, when in places(methods):
        died = forking.start(project, crash=(place, when, 1)).wait()

        assert died == -9, f"{place} was never reached: {forking.errors()}"
        assert project.faults() == [], f"{when} {place}"
    run_to_the_end(project, forking)


@pytest.mark.parametrize(
    ("command", "methods"),
    [
        (StopAgent, ["launcher.stop", "store.end_agent"]),
        (KillAgent, ["launcher.kill", "launcher.facts"]),
        (RecoverAgent, ["launcher.kill", *RECOVER]),
    ],
    ids=["stop", "kill", "recover"],
)
def test_an_end_at_any_step_of_a_command_is_mended(
    project: Project, forking: Zygote, command: type[StopAgent], methods: list[str]
) -> None:
    project.settings = replace(project.settings, parallel=1)
    (feature_id,) = project.add(WAITS)
    for place, when in places(methods):
        first = forking.start(project)
        agent_id = wait_until(lambda: _active(project), what="an agent is active")
        first.kill()
        first.wait()
        wish: Command = command(agent_id)
        died = forking.start(project, wish, crash=(place, when, 1)).wait()

        assert died == -9, f"{place} was never reached: {forking.errors()}"
        assert project.faults() == [], f"{when} {place}"
    project.write_program(feature_id, "")
    project.end_everything()
    run_to_the_end(project, forking)


def _active(project: Project) -> str:
    rows = project.query("SELECT agent_id FROM agent_heartbeats WHERE status = 'ACTIVE'")
    return str(rows[0][0]) if rows else ""
