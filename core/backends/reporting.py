"""How a backend process tells what it does: lines for the human, events for the panel.

Everything it prints goes through here, so that a credential of its environment stands
in neither of them, whatever a program or a model repeats.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from autocoder.core.events import (
    Event,
    EventLog,
    Finished,
    Iteration,
    Outcome,
    Retry,
    Started,
    Text,
    Told,
    ToolEnd,
    ToolStart,
    Usage,
    Warned,
)

SHORTEST_SECRET = 8
"""Shorter values are no secrets, and would blot out ordinary text."""

RESULT_LINES = 12
"""Lines of a tool's result that are printed."""

_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)\Z", re.IGNORECASE)


def secret_values(environ: Mapping[str, str]) -> list[str]:
    """The values of credential variables, longest first."""
    values = {
        value
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET
    }
    return sorted(values, key=len, reverse=True)


def concealer(environ: Mapping[str, str]) -> Callable[[str], str]:
    """What takes the values of credential variables out of a text."""
    secrets = secret_values(environ)
    if not secrets:
        return str
    pattern = re.compile("|".join(map(re.escape, secrets)))
    return lambda text: pattern.sub("[secret]", text)


class Reporter:
    """The voice of one backend process."""

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.conceal = concealer(os.environ if environ is None else environ)
        self._events = EventLog(folder, conceal=self.conceal)
        self._usage = Usage()

    def report(self, event: Event) -> None:
        self.note(event)
        for line in _lines(event, self._usage):
            self.say(line)

    def note(self, event: Event) -> None:
        """For the panel alone; nothing is printed."""
        if isinstance(event, Usage):
            self._usage = event
        self._events.write(event)

    def say(self, line: str) -> None:
        """One line for the human alone."""
        data = (self.conceal(line) + "\n").encode("utf-8", "replace")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _lines(event: Event, usage: Usage) -> list[str]:
    match event:
        case Started():
            resumed = ", taken up again" if event.resumed else ""
            model = f" with {event.model}" if event.model else ""
            return [f"{event.backend}{model}{resumed}"]
        case Iteration(number, of) if number > 1:
            return [f"turn  {number} of {of}" if of else f"turn  {number}"]
        case Text(text):
            return _indented("text  ", text.strip())
        case ToolStart():
            return _indented(f"tool  {event.tool}  ", event.detail)[:RESULT_LINES]
        case ToolEnd():
            lines = event.detail.strip().splitlines()
            if len(lines) > RESULT_LINES:
                left_out = len(lines) - RESULT_LINES + 1
                lines = [*lines[: RESULT_LINES - 1], f"({left_out} more lines)"]
            mark = "" if event.ok else "failed: "
            return [
                f"      {mark if number == 0 else ''}{line}" for number, line in enumerate(lines)
            ]
        case Retry():
            wait = f", again in {event.wait_s:.0f} s" if event.wait_s else ""
            return [f"wait  {event.reason}{wait}"]
        case Warned(text):
            return _indented("warn  ", text)
        case Told(text):
            return _indented("told  ", text)
        case Finished():
            return [_closing(event, usage)]
        case _:
            return []


def _closing(event: Finished, usage: Usage) -> str:
    spent = f" ({usage.input_tokens + usage.output_tokens} tokens, ${usage.cost_usd:.2f})"
    if event.outcome is Outcome.SUCCESS:
        return f"finished{spent if usage.input_tokens else ''}"
    return event.reason or str(event.outcome)


def _indented(head: str, text: str) -> list[str]:
    first, *others = text.splitlines() or [""]
    return [head + first, *("      " + line for line in others)]
