"""Commands and snapshots as JSON, for a front end in another process.

A stream of snapshots is one whole snapshot and then what has changed since: of the
fields those that differ, of the agents those that differ and the order of all. Both
ends may be of different versions: an unknown field is passed over, a missing one has
its default. Text stays ASCII, so lone surrogates of odd file names survive.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from autocoder.core.commands import Command
from autocoder.core.errors import UsageError
from autocoder.core.models import Agent, Snapshot

_COMMANDS: Mapping[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in get_args(Command)
}
_FIELDS: Mapping[str, Mapping[str, dataclasses.Field[Any]]] = {
    kind.__name__: {spec.name: spec for spec in dataclasses.fields(kind)}
    for kind in get_args(Command)
}
_SNAPSHOT = TypeAdapter(Snapshot)
_AGENT = TypeAdapter(Agent)
_SNAPSHOT_FIELDS = tuple(spec.name for spec in dataclasses.fields(Snapshot))


def command_to_json(command: Command) -> dict[str, Any]:
    name = type(command).__name__
    fields: dict[str, Any] = _COMMANDS[name].dump_python(command, mode="json")
    return {"command": name} | fields


def command_from_json(value: object) -> Command:
    """The command in a decoded JSON object.

    Raises:
        UsageError: it is none; the message names what is wrong with it.
    """
    if not isinstance(value, dict) or not isinstance(value.get("command"), str):
        raise UsageError("a command is an object with its name under `command`")
    name = value["command"]
    if name not in _COMMANDS:
        raise UsageError(f"there is no command {name[:100]!r}", f"Known: {', '.join(_COMMANDS)}.")
    fields = {key: content for key, content in value.items() if key != "command"}
    unknown = fields.keys() - _FIELDS[name].keys()
    if unknown:
        raise UsageError(f"{name} has no {min(unknown)[:100]!r}")
    try:
        command: Command = _COMMANDS[name].validate_python(fields)
    except ValidationError as error:
        raise UsageError(f"{name}: {_first(error)}") from error
    return command


class SnapshotWriter:
    """One reader's stream; remembers what that reader has been told."""

    def __init__(self) -> None:
        self._told: Snapshot | None = None

    def write(self, snapshot: Snapshot) -> str:
        """What to tell the reader so that it knows `snapshot`, as one line of JSON."""
        told, self._told = self._told, snapshot
        if told is None:
            return json.dumps(_SNAPSHOT.dump_python(snapshot, mode="json"))
        changed: dict[str, Any] = {"taken_at": snapshot.taken_at}
        names = [
            name
            for name in _SNAPSHOT_FIELDS
            if name != "agents" and getattr(snapshot, name) != getattr(told, name)
        ]
        if names:
            whole = _SNAPSHOT.dump_python(snapshot, mode="json", include=set(names))
            changed |= {name: whole[name] for name in names}
        if snapshot.agents != told.agents:
            known = {agent.agent_id: agent for agent in told.agents}
            changed["agents"] = [
                agent.agent_id
                if known.get(agent.agent_id) == agent
                else _AGENT.dump_python(agent, mode="json")
                for agent in snapshot.agents
            ]
        return json.dumps(changed)


class SnapshotReader:
    """The other end of a `SnapshotWriter`; every line must pass through it, in order."""

    def __init__(self) -> None:
        self._last: Snapshot | None = None

    def read(self, line: str) -> Snapshot:
        """The snapshot after this line.

        Raises:
            UsageError: the line is not of such a stream.
        """
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise UsageError("a snapshot is a JSON object")
            if self._last is None:
                self._last = _SNAPSHOT.validate_python(values)
            else:
                self._last = self._changed(self._last, values)
        except (ValueError, KeyError) as error:
            said = _first(error) if isinstance(error, ValidationError) else str(error)
            raise UsageError(f"no line of a stream of snapshots: {said}") from error
        return self._last

    def _changed(self, last: Snapshot, values: dict[str, Any]) -> Snapshot:
        known = {agent.agent_id: agent for agent in last.agents}
        agents = values.pop("agents", None)
        replaced: dict[str, Any] = {}
        if values.keys() & set(_SNAPSHOT_FIELDS):
            # Fields that must be there and did not change only have to be valid.
            base = {
                "project": last.project,
                "project_dir": last.project_dir,
                "base": last.base,
                "base_commit": last.base_commit,
                "parallel": last.parallel,
            }
            partial = _SNAPSHOT.validate_python(base | values)
            replaced = {name: getattr(partial, name) for name in values if name in _SNAPSHOT_FIELDS}
        if agents is not None:
            replaced["agents"] = tuple(
                known[agent] if isinstance(agent, str) else _AGENT.validate_python(agent)
                for agent in agents
            )
        return dataclasses.replace(last, **replaced)


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in details["loc"])
    return f"{where}: {details['msg']}" if where else details["msg"]
