"""Glyphs, words, tones and themes: everything the screen says without letters of its own.

Colour never carries a meaning alone: each tone comes with a glyph or a word, so
that sixteen colours, or none, lose nothing.
"""

from enum import StrEnum
from typing import Final

from rich.terminal_theme import TerminalTheme
from textual.theme import BUILTIN_THEMES, Theme

from autocoder.core.models import Agent, AgentState, Listener, Severity


class Tone(StrEnum):
    """What a piece of text means; `app.tcss` gives each a colour as `.tone--NAME`."""

    PLAIN = "plain"
    STRONG = "strong"
    DIM = "dim"
    FAINT = "faint"
    ACCENT = "accent"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


STATE_WORD: Final = {
    AgentState.STARTING: "starting",
    AgentState.ACTIVE: "active",
    AgentState.STOPPING: "stopping",
    AgentState.COMPLETED: "done",
    AgentState.FAILED: "failed",
    AgentState.CRASHED: "crashed",
    AgentState.KILLED: "killed",
}
STATE_GLYPH: Final = {
    AgentState.STARTING: "◌",
    AgentState.ACTIVE: "●",
    AgentState.STOPPING: "◍",
    AgentState.COMPLETED: "✓",
    AgentState.FAILED: "✗",
    AgentState.CRASHED: "✗",
    AgentState.KILLED: "■",
}
STATE_TONE: Final = {
    AgentState.STARTING: Tone.ACCENT,
    AgentState.ACTIVE: Tone.GOOD,
    AgentState.STOPPING: Tone.WARN,
    AgentState.COMPLETED: Tone.DIM,
    AgentState.FAILED: Tone.BAD,
    AgentState.CRASHED: Tone.BAD,
    AgentState.KILLED: Tone.DIM,
}
WAITING, BLOCKED, PROBLEM, MARKED, CURSOR, NOTHING = "▪", "▣", "⚠", "◆", "▶", "–"
MORE_ABOVE, MORE_BELOW, MORE_BOTH = "↑", "↓", "↕"
HELD, HELD_WORD = "‖", "held"
"""Stopped by a human, and not gone on with before one asks for it."""
GO_ON: Final = "r goes on with it"

LISTENER: Final = {
    Listener.OWN: ("●", Tone.GOOD, "its own listener"),
    Listener.NONE: ("○", Tone.DIM, "nothing listens yet"),
    Listener.FOREIGN: ("✗", Tone.BAD, "a foreign listener"),
    Listener.SWAPPED: ("⇄", Tone.BAD, "swapped: it and another agent listen on each other's ports"),
}
LISTENER_WORD: Final = {
    Listener.OWN: "own",
    Listener.NONE: "none yet",
    Listener.FOREIGN: "foreign",
    Listener.SWAPPED: "swapped",
}
SEVERITY: Final = {
    Severity.INFO: ("·", Tone.DIM),
    Severity.WARNING: (PROBLEM, Tone.WARN),
    Severity.ERROR: ("✗", Tone.BAD),
}


def state_of(agent: Agent) -> tuple[str, str, Tone]:
    """Glyph, word and tone; a problem takes the glyph, the word stays."""
    word = STATE_WORD[agent.state]
    if agent.held:
        return HELD, HELD_WORD, Tone.ACCENT
    if agent.problem:
        return PROBLEM, word, Tone.WARN
    return STATE_GLYPH[agent.state], word, STATE_TONE[agent.state]


def _theme(
    name: str, *, dark: bool = True, dim: str, faint: str, row: str, **colours: str
) -> Theme:
    extra = {
        "dim": dim,
        "faint": faint,
        "row": row,
        "input-cursor-background": colours["foreground"],
        "input-cursor-foreground": colours["background"],
    }
    return Theme(name=name, dark=dark, variables=extra, **colours)  # type: ignore[arg-type]


THEMES: Final = (
    _theme(
        "night",
        primary="#7aa2d6",
        accent="#7aa2d6",
        success="#7fb58a",
        warning="#d9a85b",
        error="#e0717a",
        foreground="#c8ced6",
        background="#12161b",
        surface="#171c22",
        panel="#1b2129",
        dim="#7d8895",
        faint="#3a434e",
        # Any bluer, and where SSH leaves 256 colours the nearest one is a loud navy.
        row="#262c33",
    ),
    _theme(
        "day",
        dark=False,
        primary="#1f5fa8",
        accent="#1f5fa8",
        success="#2c7a43",
        warning="#96620a",
        error="#b3303b",
        foreground="#24292f",
        background="#fafbfc",
        surface="#f1f3f5",
        panel="#f1f3f5",
        dim="#667079",
        faint="#c9cfd6",
        row="#dfe8f3",
    ),
    Theme(
        name="terminal",
        ansi=True,
        primary="ansi_blue",
        accent="ansi_cyan",
        success="ansi_green",
        warning="ansi_yellow",
        error="ansi_red",
        foreground="ansi_default",
        background="ansi_default",
        surface="ansi_default",
        panel="ansi_default",
        variables=BUILTIN_THEMES["ansi-dark"].variables
        | {"dim": "ansi_bright_black", "faint": "ansi_bright_black", "row": "ansi_bright_black"},
    ),
)
"""The first is the default; `terminal` uses the terminal's own sixteen colours."""


def _rgb(text: str) -> list[tuple[int, int, int]]:
    return [(int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)) for code in text.split()]


ANSI_NIGHT: Final = TerminalTheme(
    (0x12, 0x16, 0x1B),
    (0xC8, 0xCE, 0xD6),
    _rgb("3a434e e0717a 7fb58a d9a85b 7aa2d6 b08fc7 6fb3b8 c8ced6"),
    _rgb("7d8895 ea8f96 98c7a2 e5be80 98b8e0 c4abd6 8fc6ca e4e8ec"),
)
ANSI_DAY: Final = TerminalTheme(
    (0xFA, 0xFB, 0xFC),
    (0x24, 0x29, 0x2F),
    _rgb("24292f b3303b 2c7a43 96620a 1f5fa8 7b4a94 1d757c 57606a"),
    _rgb("667079 c9444f 3a8f53 ad7415 3573bd 8f5da8 2b8990 6e7781"),
)
"""What the sixteen colours of an agent's output become, so that they sit in the theme."""
