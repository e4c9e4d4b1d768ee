"""What the conversation with the assistant says. All of it is sanitised here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from autocoder.core.errors import AutocoderError
from autocoder.core.events import Event, Finished, Outcome, Retry, Text, ToolEnd, ToolStart, Warned
from autocoder.core.logs import sanitise
from autocoder.core.models import Agent
from autocoder.tui.palette import CURSOR, Tone
from autocoder.tui.spans import Line, joined


class By(Enum):
    HUMAN = "human"
    ASSISTANT = "assistant"
    TOOL = "tool"
    TROUBLE = "trouble"


@dataclass(slots=True)
class Part:
    """One part of the conversation; the assistant's grows while it speaks."""

    by: By
    text: str


def take_in(parts: list[Part], event: Event) -> None:
    """Add what an event says to the parts so far."""
    match event:
        case Text(text):
            if parts and parts[-1].by is By.ASSISTANT:
                parts[-1].text += text
            else:
                parts.append(Part(By.ASSISTANT, text))
        case ToolStart():
            parts.append(Part(By.TOOL, f"{event.tool}  {event.detail}"))
        case ToolEnd(ok=False):
            parts.append(Part(By.TROUBLE, event.detail or "the tool failed"))
        case Retry() | Warned():
            said = event.reason if isinstance(event, Retry) else event.text
            parts.append(Part(By.TROUBLE, said))
        case Finished(outcome, reason) if outcome is not Outcome.SUCCESS:
            parts.append(Part(By.TROUBLE, reason or outcome.value))
        case _:
            pass


def said_before(by: str, text: str) -> Part:
    return Part(By.HUMAN if by == "human" else By.ASSISTANT, text)


def trouble(error: BaseException) -> Part:
    """What went wrong, with the way out where there is one."""
    if isinstance(error, AutocoderError):
        return Part(By.TROUBLE, f"{error.message}\n{error.hint}".strip())
    return Part(By.TROUBLE, f"{type(error).__name__}: {error}")


def assistant_lines(parts: Sequence[Part]) -> tuple[Line, ...]:
    if not parts:
        return EMPTY
    return tuple(_lines(parts))


def _lines(parts: Iterable[Part]) -> Iterator[Line]:
    before: By | None = None
    for part in parts:
        if part.by is By.HUMAN or before in (By.HUMAN, None) or part.by is not before:
            yield ()
        before = part.by
        for number, text in enumerate(part.text.strip("\n").split("\n")):
            clean = sanitise(text)
            match part.by:
                case By.HUMAN:
                    yield (
                        (f" {CURSOR if not number else ' '} ", Tone.ACCENT),
                        (clean, Tone.STRONG),
                    )
                case By.TOOL:
                    yield ((f"     {clean}", Tone.DIM),)
                case By.TROUBLE:
                    yield ((f"   {clean}", Tone.WARN),)
                case By.ASSISTANT:
                    yield ((f"   {clean}", Tone.PLAIN),)


EMPTY: tuple[Line, ...] = (
    (),
    (("   Ask about the project, its backlog, or what an agent is doing.", Tone.PLAIN),),
    (("   It reads files and changes none; what is said is kept with the project.", Tone.DIM),),
)


def assistant_title(agent: Agent | None, cost_usd: float, *, answering: bool) -> Line:
    """Whom it is about, on which ports, at what cost so far."""
    about: Line = (("about the project", Tone.DIM),)
    if agent is not None:
        about = (
            ("about ", Tone.DIM),
            (sanitise(agent.agent_id), Tone.STRONG),
            (f"  {sanitise(agent.feature)}", Tone.PLAIN),
        )
    ports: Line = ()
    if agent is not None and agent.api_port is not None and agent.web_port is not None:
        ports = ((f"api {agent.api_port}  web {agent.web_port}", Tone.ACCENT),)
    cost: Line = ((f"${cost_usd:.2f}", Tone.DIM),) if cost_usd else ()
    state: Line = (("◍ answering", Tone.WARN),) if answering else ()
    return joined(filter(None, (((" assistant", Tone.STRONG),), about, ports, cost, state)), "   ")
