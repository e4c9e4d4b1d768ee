"""What a backend reports while it works: typed events, one JSON line each.

They stand in `events.jsonl` of the run folder beside the human log. Counters are of
the whole run so far, not of a step, so a reader that starts late or meets a file
begun anew still shows what is true. Text in events is the agent's: sanitise it.
"""

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

EVENTS_FILE = "events.jsonl"
TEXT_LIMIT = 2000
"""Characters of a text or detail; the human log has all of it."""
LARGEST_NUMBER = 1 << 53
READ_AT_ONCE = 256 << 10
"""Bytes that one look reads; a reader far behind catches up in several."""
HEAD_BYTES, TAIL_BYTES = 1 << 10, 16 << 10
"""What is read of a run that has ended."""
FILE_LIMIT = 8 << 20
"""The file is begun anew at this size; the older half stays as `events.jsonl.1`."""


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Started:
    """A conversation began or was taken up again."""

    backend: str
    model: str = ""
    resume_id: str = ""
    """By which it can be gone on with; empty where the program has none."""
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Iteration:
    """The backend was given something to do, for the `number`th time."""

    number: int
    of: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class ToolStart:
    id: str
    tool: str
    detail: str = ""
    """The command, path or argument that says most."""


@dataclass(frozen=True, slots=True)
class ToolEnd:
    id: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of the run so far."""

    input_tokens: int = 0
    """Cached ones included."""
    output_tokens: int = 0
    cost_usd: float = 0.0
    turns: int = 0


@dataclass(frozen=True, slots=True)
class Retry:
    """The model's service did not answer; the program tries again by itself."""

    reason: str
    attempt: int = 0
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Warned:
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """A human's message reached the agent."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    outcome: Outcome
    reason: str = ""
    """One line; why, where it is no success."""


Event = Started | Iteration | Text | ToolStart | ToolEnd | Usage | Retry | Warned | Told | Finished
_KINDS: dict[str, type[Any]] = {
    "started": Started,
    "iteration": Iteration,
    "text": Text,
    "tool_start": ToolStart,
    "tool_end": ToolEnd,
    "usage": Usage,
    "retry": Retry,
    "warning": Warned,
    "told": Told,
    "finished": Finished,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(event: Event, at: float) -> str:
    """One line of JSON without its end."""
    values = {
        key: value[:TEXT_LIMIT] if isinstance(value, str) else value
        for key, value in asdict(event).items()
    }
    return json.dumps({"at": round(at, 3), "event": _NAMES[type(event)], **values})


def decode(line: str | bytes) -> Event | None:
    """The event of a line; None where it is none this version knows."""
    try:
        values = json.loads(line)
        kind = _KINDS[values.pop("event")]
        given = {
            field.name: _checked(field.type, values[field.name])
            for field in fields(kind)
            if field.name in values
        }
        event: Event = kind(**given)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return event


def _checked(kind: Any, value: object) -> object:
    """An agent can write to the file too, so no value is taken for what it should be."""
    if kind is Outcome:
        return Outcome(str(value))
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind}")
    if isinstance(value, int | float) and not abs(value) < LARGEST_NUMBER:
        raise ValueError(f"{value!r} is out of range")
    return value


class EventLog:
    """Writes events; what a full disk refuses is dropped, the log says it anyway."""

    def __init__(
        self,
        folder: Path,
        *,
        conceal: Callable[[str], str] = str,
        now: Callable[[], float] = time.time,
        limit: int = FILE_LIMIT,
    ) -> None:
        """`conceal` takes secrets out of a line before it is written."""
        self._path = folder / EVENTS_FILE
        self._conceal = conceal
        self._now = now
        self._limit = limit // 2

    def write(self, event: Event) -> None:
        line = self._conceal(encode(event, self._now())) + "\n"
        with contextlib.suppress(OSError):
            if self._path.exists() and self._path.stat().st_size > self._limit:
                self._path.replace(self._path.with_name(EVENTS_FILE + ".1"))
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", buffering=0) as file:
                file.write(line.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Progress:
    """What a grid shows of a run: the events so far, folded."""

    resume_id: str = ""
    model: str = ""
    iteration: int = 0
    last_tool: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    turns: int = 0
    retrying: str = ""
    """Why the model's service does not answer; empty once it does again."""
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def after(self, event: Event) -> "Progress":
        """What is true once `event` has happened."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        match event:
            case Started():
                values |= {
                    "resume_id": event.resume_id or self.resume_id,
                    "model": event.model or self.model,
                    "outcome": None,
                    "reason": "",
                }
            case Iteration():
                values |= {"iteration": event.number}
            case ToolStart():
                values |= {"last_tool": event.tool, "retrying": ""}
            case Text():
                values |= {"retrying": ""}
            case Usage():
                values |= {
                    "input_tokens": max(event.input_tokens, self.input_tokens),
                    "output_tokens": max(event.output_tokens, self.output_tokens),
                    "cost_usd": max(event.cost_usd, self.cost_usd),
                    "turns": max(event.turns, self.turns),
                }
            case Retry():
                values |= {"retrying": event.reason}
            case Finished():
                values |= {"outcome": event.outcome, "reason": event.reason, "retrying": ""}
            case _:
                return self
        return Progress(**values)


class ProgressReader:
    """Follows the events of one run, reading only what is new."""

    def __init__(self, run_folder: Path) -> None:
        self._path = str(run_folder / EVENTS_FILE)
        self._inode = 0
        self._offset = 0
        self._progress = Progress()

    def poll(self) -> Progress:
        """Read what was appended since; costs one stat where nothing was."""
        try:
            # Asked for every agent at every look, and pathlib costs more than the call.
            status = os.stat(self._path)  # noqa: PTH116
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._inode, self._offset = status.st_ino, 0
            if status.st_size > self._offset:
                self._read(status.st_size - self._offset)
        except OSError:
            return self._progress
        return self._progress

    def _read(self, available: int) -> None:
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            data = file.read(min(available, READ_AT_ONCE))
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) == READ_AT_ONCE:
            whole = data  # no event is that long
        self._offset += len(whole)
        self._progress = folded(whole.splitlines(), self._progress)


def folded(lines: Iterable[str | bytes], progress: Progress | None = None) -> Progress:
    """The progress after all of these lines; lines that are no events count for nothing."""
    so_far = progress or Progress()
    for line in lines:
        if (event := decode(line)) is not None:
            so_far = so_far.after(event)
    return so_far


def progress_at_end(run_folder: Path) -> Progress:
    """As `last_progress`, of a run that has ended, by the beginning and the end of each file.

    What it used last may be missing; its counters, which are of the whole run, are not.
    """
    lines: list[bytes] = []
    for name in (EVENTS_FILE + ".1", EVENTS_FILE):
        with contextlib.suppress(OSError):
            lines += _both_ends(run_folder / name).splitlines()
    return folded(lines)


def _both_ends(path: Path) -> bytes:
    # Whoever wrote it is not trusted: no link is followed, and no pipe waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        head = file.read(HEAD_BYTES)
        file.seek(max(status.st_size - TAIL_BYTES, len(head)))
        return head + file.read(TAIL_BYTES)


def last_progress(run_folder: Path) -> Progress:
    """Everything the run in this folder has reported, the file before included."""
    lines: list[bytes] = []
    for name in (EVENTS_FILE + ".1", EVENTS_FILE):
        with contextlib.suppress(OSError):
            lines += (run_folder / name).read_bytes().splitlines()
    return folded(lines)
