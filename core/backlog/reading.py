"""The entries of a backlog file, each with the line it begins on.

Nothing a file says is executed or expanded: YAML is read as events, without
tags, anchors and aliases, and size, count and depth are bounded.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from autocoder.core.errors import UsageError

SIZE_LIMIT = 8 * 1024 * 1024
COUNT_LIMIT = 10_000
DEPTH_LIMIT = 8

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SPACE = re.compile(r"[ \t\n\r]*")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_PLAIN = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Entry:
    line: int
    """From 1."""
    value: Any


def read_entries(path: Path) -> list[Entry]:
    """What the list of features in the file holds, unchecked.

    Raises:
        UsageError: it cannot be read, or is no list of features; names file and line.
    """
    text = _read(path)
    try:
        is_yaml = path.suffix.lower() in (".yaml", ".yml")
        entries = _yaml_entries(text) if is_yaml else _json_entries(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}: {error.msg}", "The file is no JSON.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: {error.problem}", "The file is no YAML.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply") from None
    except _Unfit as unfit:
        raise UsageError(f"{path}:{unfit.line}: {unfit}") from None
    if len(entries) > COUNT_LIMIT:
        raise UsageError(f"{path} has {len(entries)} features; at most {COUNT_LIMIT} are read")
    return entries


class _Unfit(Exception):
    """Well-formed, but nothing a backlog is made of."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _read(path: Path) -> str:
    if not path.is_file():
        what = "is not a file" if path.exists() else "is not there"
        raise UsageError(f"{path} {what}", "Name a JSON or YAML file with features.")
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "Make the file readable.") from error
    if len(content) > SIZE_LIMIT:
        raise UsageError(f"{path} is larger than {SIZE_LIMIT // 1024 // 1024} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8", "Save the file as UTF-8.") from error


def _json_entries(text: str) -> list[Entry]:
    # All of it first, so that the walk below meets no syntax errors.
    json.loads(text, parse_constant=_refuse_constant)
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    if text[at] == "{":
        at = _value_of_features(decoder, text, at)
    if text[at] != "[":
        raise _Unfit(_line(text, at), _EXPECTED)
    entries = []
    line, counted = 1, 0
    at = _skip(text, at + 1)
    while text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, end = decoder.raw_decode(text, at)
        entries.append(Entry(line, value))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return entries


_EXPECTED = 'expected a list of features, or an object with a list "features"'


def _value_of_features(decoder: json.JSONDecoder, text: str, start: int) -> int:
    """Where the value of `features` begins in the object at `start`."""
    at = _skip(text, start + 1)
    while text[at] != "}":
        key, end = decoder.raw_decode(text, at)
        at = _skip(text, _skip(text, end) + 1)
        if key == "features":
            return at
        _, end = decoder.raw_decode(text, at)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    raise _Unfit(_line(text, start), _EXPECTED)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _yaml_entries(text: str) -> list[Entry]:
    events = iter(yaml.parse(text, Loader=_YAML_LOADER))
    top: Entry | None = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent) and top is not None:
            raise _Unfit(_begins(event), "more than one document")
        if isinstance(event, yaml.NodeEvent):
            top = _yaml_node(event, events, 0)
    if top is None:
        raise _Unfit(1, _EXPECTED)
    if isinstance(top.value, dict):
        top = top.value.get("features", top)
    if not isinstance(top.value, list):
        raise _Unfit(top.line, _EXPECTED)
    return [Entry(entry.line, _without_lines(entry)) for entry in top.value]


def _yaml_node(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Entry:
    """The node that begins with `event`, its children entries too."""
    line = _begins(event)
    if depth > DEPTH_LIMIT:
        raise _Unfit(line, "nested too deeply")
    if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) or event.anchor:
        raise _Unfit(line, "anchors and aliases are not read")
    if event.tag:
        raise _Unfit(line, f"the tag {event.tag} is not read")
    if isinstance(event, yaml.ScalarEvent):
        return Entry(line, _scalar(event))
    children = []
    for child in events:
        if isinstance(child, yaml.CollectionEndEvent):
            break
        children.append(_yaml_node(child, events, depth + 1))
    if isinstance(event, yaml.SequenceStartEvent):
        return Entry(line, children)
    pairs = zip(children[::2], children[1::2], strict=True)
    mapping: dict[object, Entry] = {}
    for key, value in pairs:
        if not isinstance(key.value, str):
            raise _Unfit(key.line, "a key must be a text")
        if key.value in mapping:
            raise _Unfit(key.line, f"{key.value!r} stands there twice")
        mapping[key.value] = value
    return Entry(line, mapping)


def _begins(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _scalar(event: yaml.ScalarEvent) -> object:
    """Plain scalars as YAML 1.2 has them, so that `no` stays a word."""
    if not event.implicit[0]:
        return event.value
    if event.value.lower() in _PLAIN:
        return _PLAIN[event.value.lower()]
    return int(event.value) if _INTEGER.fullmatch(event.value) else event.value


def _without_lines(entry: Entry) -> object:
    match entry.value:
        case list() as items:
            return [_without_lines(item) for item in items]
        case dict() as mapping:
            return {key: _without_lines(value) for key, value in mapping.items()}
        case scalar:
            return scalar
