"""What details, a diff, past events and settings say. All of it is sanitised here."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autocoder.core.errors import AutocoderError
from autocoder.core.logs import SHOWN_LIMIT, sanitise
from autocoder.core.models import Agent, Role
from autocoder.tui.palette import LISTENER, NOTHING, SEVERITY, STATE_WORD, Tone
from autocoder.tui.spans import Line, clock, counted, duration, size

if TYPE_CHECKING:
    from autocoder.core.questions import Details, PastEvent, SettingValue

PATHS_SHOWN = 60
DIFF_TONES = (
    (("+++", "---", "diff ", "index "), Tone.DIM),
    (("@@",), Tone.ACCENT),
    (("+",), Tone.GOOD),
    (("-",), Tone.BAD),
)


def _fact(name: str, value: Line) -> Line:
    return ((f"    {name:<17}", Tone.DIM), *value)


def _title(text: str) -> tuple[Line, ...]:
    return ((), ((f"  {text}", Tone.STRONG),))


def details_page(agent: Agent, details: "Details", now: float) -> tuple[Line, ...]:
    """Everything there is to know of one agent."""
    lines: list[Line] = [*_title(sanitise(agent.feature))]
    facts = [
        ("state", STATE_WORD[agent.state]),
        ("reason", sanitise(agent.reason)),
        ("problem", sanitise(agent.problem)),
        ("worktree", sanitise(agent.worktree_path)),
        ("branch", sanitise(agent.branch)),
        ("backend", sanitise(f"{agent.backend} {agent.model}".strip())),
        ("iteration", str(agent.iteration or "")),
        ("last tool", sanitise(agent.last_tool)),
        ("tokens", f"{agent.tokens:,}" if agent.tokens else ""),
        ("cost", f"${agent.cost_usd:.2f}" if agent.cost_usd else ""),
        ("retrying", sanitise(agent.retrying)),
        ("started", f"{clock(agent.started_at)}, {duration(now - agent.started_at)} ago"),
        ("log", sanitise(agent.log_path)),
    ]
    lines += [_fact(name, ((value, Tone.PLAIN),)) for name, value in facts if value]
    for role, port, listener in (
        (Role.API, agent.api_port, agent.api_listener),
        (Role.WEB, agent.web_port, agent.web_listener),
    ):
        if port is not None:
            glyph, tone, words = LISTENER[listener]
            lines.append(_fact(role.value, ((f"{port} {glyph} ", tone), (words, Tone.DIM))))
    if details.processes:
        lines += _title("Processes")
        for process in details.processes:
            lines.append(
                (
                    (f"    {process.pid:>8}  {process.state}  ", Tone.DIM),
                    (f"{size(process.memory_bytes):>5} {process.cpu_seconds:7.1f}s  ", Tone.DIM),
                    ("  " * process.depth + sanitise(process.command), Tone.PLAIN),
                )
            )
    if details.facts:
        lines += _title("How it ended")
        for name, value in details.facts:
            first, *others = value.split("\n")
            lines.append(_fact(sanitise(name), ((sanitise(first), Tone.PLAIN),)))
            lines += [_fact("", ((sanitise(text), Tone.PLAIN),)) for text in others]
    if details.changed_paths:
        lines += _title(f"{counted(len(details.changed_paths), 'file')} changed on its branch")
        shown = details.changed_paths[:PATHS_SHOWN]
        lines += [((f"    {sanitise(path)}", Tone.PLAIN),) for path in shown]
        if len(details.changed_paths) > PATHS_SHOWN:
            lines.append(((f"    … {len(details.changed_paths) - PATHS_SHOWN} more", Tone.DIM),))
    if details.environment:
        lines += _title("Environment of its backend (values only of what we gave it)")
        for name, value in details.environment:
            said: Line = ((f" = {sanitise(value)}", Tone.PLAIN),) if value else ()
            lines.append(((f"    {sanitise(name)}", Tone.ACCENT if value else Tone.DIM), *said))
    if details.prompt:
        lines += _title("Prompt")
        lines += [((f"    {sanitise(text)}", Tone.PLAIN),) for text in details.prompt.splitlines()]
    return tuple(lines)


def diff_page(diff: str, agent: Agent) -> tuple[Line, ...]:
    """A diff, coloured by its first characters; where there is none, why."""
    if not diff.strip():
        return ((), (("  No difference to base.", Tone.PLAIN),), ((_why_none(agent), Tone.DIM),))
    return ((), *(((f"  {_shown(text)}", _diff_tone(text)),) for text in diff.split("\n")))


def _shown(text: str) -> str:
    """What is minified is on one line, which nobody reads to its end."""
    clean = sanitise(text[:SHOWN_LIMIT])
    return f"{clean} … {len(text) - SHOWN_LIMIT:,} more" if len(text) > SHOWN_LIMIT else clean


def _why_none(agent: Agent) -> str:
    if agent.live:
        return "  Nothing is committed, edited or added yet in its worktree."
    if agent.worktree_path:
        return "  It has left neither commits nor changed files in its worktree."
    return "  Its worktree is gone; what it had committed is in base, or was given up."


def _diff_tone(text: str) -> Tone:
    return next((tone for starts, tone in DIFF_TONES if text.startswith(starts)), Tone.PLAIN)


def events_page(events: "Sequence[PastEvent]") -> tuple[Line, ...]:
    """The project's activity by day, the newest first."""
    if not events:
        return (
            (),
            (("  Nothing has happened in this project yet.", Tone.PLAIN),),
            (("  Agents that start, end or are merged are told of here.", Tone.DIM),),
        )
    lines: list[Line] = []
    day = ""
    for event in reversed(events):
        if day != (day := time.strftime("%A, %Y-%m-%d", time.localtime(event.at))):
            lines += [(), ((f"  {day}", Tone.STRONG),)]
        glyph, tone = SEVERITY[event.severity]
        who = event.agent_id or (f"feature {event.feature_id}" if event.feature_id else "")
        kind = "" if event.kind == "notice" else f"{sanitise(event.kind)}  "
        lines.append(
            (
                (f"  {clock(event.at)}  ", Tone.DIM),
                (f"{glyph} ", tone),
                (f"{sanitise(who):<11} ", Tone.STRONG),
                (kind, Tone.DIM),
                (sanitise(event.text), Tone.PLAIN),
            )
        )
    return tuple(lines)


EVENTS_HANG = 24
"""From the time to the text of an event."""


def settings_page(settings: "Sequence[SettingValue]", note: str = "") -> tuple[Line, ...]:
    """Every setting with its value, and where it came from when it is not the default."""
    lines: list[Line] = [()]
    if note:
        lines += [((f"  {sanitise(note)}", Tone.WARN),), ()]
    for setting in settings:
        own = setting.origin != "default"
        value = sanitise(setting.value) or NOTHING
        name = (f"  {sanitise(setting.name):<22} ", Tone.STRONG if own else Tone.PLAIN)
        shown = (f"{value:<24} ", Tone.ACCENT if own else Tone.PLAIN)
        meaning = (sanitise(setting.meaning), Tone.DIM)
        if len(value) <= 24:
            lines.append((name, shown, meaning))
        else:
            lines += [(name, shown), ((" " * (SETTINGS_HANG + 2), Tone.PLAIN), meaning)]
        if own:
            lines.append(((f"  {'':<22} from {sanitise(setting.origin)}", Tone.DIM),))
    return tuple(lines)


SETTINGS_HANG = 48
"""From the name to the meaning of a setting."""


def error_page(error: BaseException) -> tuple[Line, ...]:
    """Why there is no answer."""
    if not isinstance(error, AutocoderError):
        return ((), ((f"  {type(error).__name__}: {sanitise(str(error))}", Tone.BAD),))
    said: Line = ((f"  {sanitise(error.message)}", Tone.BAD),)
    return ((), said, ((f"  {sanitise(error.hint)}", Tone.DIM),))


ASKING: tuple[Line, ...] = ((), (("  looking …", Tone.DIM),))
