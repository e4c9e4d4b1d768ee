"""What one process says of itself, another one reads unchanged."""

import dataclasses
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocoder.core.commands import Command, ExpandPool, KillAgent, SpawnAgent
from autocoder.core.errors import UsageError
from autocoder.core.models import Agent, AgentState, Notice, PortRange, Role, Severity, Snapshot
from autocoder.core.wire import (
    SnapshotReader,
    SnapshotWriter,
    command_from_json,
    command_to_json,
)
from support.snapshots import a_busy_project

TEXT = st.text(max_size=20)
AGENTS = st.builds(
    Agent,
    agent_id=st.sampled_from([f"a-{number}" for number in range(6)]),
    state=st.sampled_from(AgentState),
    feature_id=st.integers(0, 9),
    feature=TEXT,
    backend=TEXT,
)
SNAPSHOTS = st.builds(
    Snapshot,
    taken_at=st.floats(0, 1e9),
    project=TEXT,
    project_dir=TEXT,
    base=TEXT,
    base_commit=TEXT,
    parallel=st.integers(0, 9),
    paused=st.booleans(),
    agents=st.lists(AGENTS, max_size=5, unique_by=lambda agent: agent.agent_id).map(tuple),
    notices=st.lists(
        st.builds(
            Notice,
            id=st.integers(),
            at=st.floats(0, 1e9),
            severity=st.sampled_from(Severity),
            subject=TEXT,
            text=TEXT,
        ),
        max_size=3,
    ).map(tuple),
)


@given(st.one_of(*(st.from_type(kind) for kind in get_args(Command))))
def test_every_command_survives_the_way_through_json(command: Command) -> None:
    assert command_from_json(json.loads(json.dumps(command_to_json(command)))) == command


def test_a_range_and_a_number_stay_what_they_are() -> None:
    for amount in (PortRange(5300, 5310), 10, None):
        command = ExpandPool(Role.API, amount)
        assert command_from_json(command_to_json(command)) == command


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("KillAgent", "object"),
        ({}, "`command`"),
        ({"command": "Reboot"}, "no command 'Reboot'"),
        ({"command": "KillAgent"}, "agent_id"),
        ({"command": "KillAgent", "agent_id": 7}, "agent_id"),
        ({"command": "KillAgent", "agent_id": "a-1", "force": True}, "no 'force'"),
        ({"command": "ExpandPool", "role": "both"}, "role"),
        ({"command": ["KillAgent"]}, "`command`"),
    ],
)
def test_what_is_no_command_is_refused_by_name(value: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        command_from_json(value)


@given(st.lists(SNAPSHOTS, min_size=1, max_size=6))
def test_a_stream_of_snapshots_is_read_as_it_was_written(snapshots: list[Snapshot]) -> None:
    writer, reader = SnapshotWriter(), SnapshotReader()
    for snapshot in snapshots:
        read = reader.read(writer.write(snapshot))
        assert read == snapshot
        assert read.taken_at == snapshot.taken_at


def test_only_what_changed_is_sent() -> None:
    snapshot = a_busy_project()
    writer = SnapshotWriter()
    whole = writer.write(snapshot)
    first, *others = snapshot.agents
    changed = dataclasses.replace(
        snapshot, agents=(dataclasses.replace(first, last_line="new"), *others)
    )
    line = writer.write(changed)
    assert json.loads(line).keys() == {"taken_at", "agents"}
    assert len(line) < len(whole) / 4


def test_a_newer_end_may_say_more_and_an_older_one_less() -> None:
    snapshot = json.loads(SnapshotWriter().write(a_busy_project()))
    snapshot["invented_later"] = {"x": 1}
    del snapshot["leases"]
    read = SnapshotReader().read(json.dumps(snapshot))
    assert read.leases == ()


def test_names_that_are_not_unicode_survive() -> None:
    odd = dataclasses.replace(a_busy_project(), project="\udcff\x1b[31m")
    assert SnapshotReader().read(SnapshotWriter().write(odd)) == odd


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"taken_at": "noon"}', "null", "\x00"])
def test_a_line_of_something_else_is_refused(line: str) -> None:
    with pytest.raises(UsageError):
        SnapshotReader().read(line)


def test_commands_of_the_panel_are_all_known() -> None:
    for command in (KillAgent("a-1"), SpawnAgent(task="Do this")):
        assert command_from_json(command_to_json(command)) == command
