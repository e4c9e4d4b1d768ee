"""What details, a diff, past events and settings say. All of it is sanitised here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autocoder.core.errors import AutocoderError
from autocoder.core.logs import sanitise
from autocoder.core.models import Agent, Role
from autocoder.tui.palette import LISTENER, SEVERITY, STATE_WORD, Tone
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
    return ((f"    {name:<14}", Tone.DIM), *value)


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
        lines += [
            _fact(sanitise(name), ((sanitise(value), Tone.PLAIN),)) for name, value in details.facts
        ]
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


def diff_page(diff: str) -> tuple[Line, ...]:
    """A diff, coloured by its first characters."""
    if not diff.strip():
        return ((), (("  No difference to base.", Tone.DIM),))
    return tuple(((f"  {sanitise(text)}", _diff_tone(text)),) for text in diff.split("\n"))


def _diff_tone(text: str) -> Tone:
    return next((tone for starts, tone in DIFF_TONES if text.startswith(starts)), Tone.PLAIN)


def events_page(events: "Sequence[PastEvent]") -> tuple[Line, ...]:
    """The project's activity, the newest first."""
    if not events:
        return ((), (("  Nothing has happened in this project yet.", Tone.DIM),))
    lines: list[Line] = [()]
    for event in reversed(events):
        glyph, tone = SEVERITY[event.severity]
        who = event.agent_id or (f"feature {event.feature_id}" if event.feature_id else "")
        lines.append(
            (
                (f"  {clock(event.at)}  ", Tone.DIM),
                (f"{glyph} ", tone),
                (f"{sanitise(who):<11} ", Tone.STRONG),
                (f"{sanitise(event.kind):<18} ", Tone.DIM),
                (sanitise(event.text), Tone.PLAIN),
            )
        )
    return tuple(lines)


def settings_page(settings: "Sequence[SettingValue]", note: str = "") -> tuple[Line, ...]:
    """Every setting with its value, and where it came from when it is not the default."""
    lines: list[Line] = [()]
    if note:
        lines += [((f"  {sanitise(note)}", Tone.WARN),), ()]
    for setting in settings:
        own = setting.origin != "default"
        lines.append(
            (
                (f"  {sanitise(setting.name):<22} ", Tone.STRONG if own else Tone.PLAIN),
                (f"{sanitise(setting.value) or '–':<24} ", Tone.ACCENT if own else Tone.PLAIN),
                (sanitise(setting.meaning), Tone.DIM),
            )
        )
        if own:
            lines.append(((f"  {'':<22} from {sanitise(setting.origin)}", Tone.DIM),))
    return tuple(lines)


def error_page(error: BaseException) -> tuple[Line, ...]:
    """Why there is no answer."""
    if not isinstance(error, AutocoderError):
        return ((), ((f"  {type(error).__name__}: {sanitise(str(error))}", Tone.BAD),))
    said: Line = ((f"  {sanitise(error.message)}", Tone.BAD),)
    return ((), said, ((f"  {sanitise(error.hint)}", Tone.DIM),))


ASKING: tuple[Line, ...] = ((), (("  looking …", Tone.DIM),))
