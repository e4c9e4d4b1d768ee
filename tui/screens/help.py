"""Every key and every glyph, from the binding table and the palette."""

from collections.abc import Collection, Iterable, Mapping

from textual.binding import Binding, BindingType

from autocoder.core.logs import sanitise
from autocoder.core.models import AgentState
from autocoder.tui import keys, palette
from autocoder.tui.palette import Tone
from autocoder.tui.screens import features, fleet, ports
from autocoder.tui.spans import Line
from autocoder.tui.widgets.log_pane import LogPane
from autocoder.tui.widgets.table import Table

HANG = 20
"""From a key to what it does."""
NAME_AT = 76
"""From what a key does to its name."""
NAMED_WIDTH = 130
"""Narrower terminals have no room for the names of keys."""


CHANGING = fleet.CHANGING | ports.CHANGING | features.CHANGING | {"remove"}
WRITTEN_IN = (keys.SPAWNING, (*keys.WRITING, *keys.READING))
"""Views that a read-only panel does not have."""
READ_ONLY: tuple[Line, ...] = (
    (),
    (("  This panel is read-only: keys that change something are left out.", Tone.WARN),),
)


def help_lines(
    own_keys: Mapping[str, str], *, read_only: bool = False, named: bool = False, file: str = ""
) -> tuple[Line, ...]:
    """`own_keys` are the user's, by the name of their binding, which is shown too if `named`.

    `file` is where the user says what keys and theme are to be.
    """
    lacking = CHANGING if read_only else frozenset()
    lines: list[Line] = list(READ_ONLY if read_only else ())
    lines += _keys(
        (*keys.MAIN_GROUPS, ("In a table", Table.BINDINGS), ("In a log", LogPane.BINDINGS)),
        own_keys,
        lacking,
        named,
    )
    lines += [(), (("  Glyphs", Tone.STRONG),)]
    for state in AgentState:
        glyph, tone = palette.STATE_GLYPH[state], palette.STATE_TONE[state]
        lines.append(((f"    {glyph}  ", tone), (palette.STATE_WORD[state], Tone.PLAIN)))
    lines.append(
        (
            (f"    {palette.HELD}  ", Tone.ACCENT),
            ("held: its feature waits until you let it go on, with r", Tone.PLAIN),
        )
    )
    lines.append(
        ((f"    {palette.PROBLEM}  ", Tone.WARN), ("needs you: the reason follows", Tone.PLAIN))
    )
    for glyph, tone, words in palette.LISTENER.values():
        lines.append(((f"    {glyph}  ", tone), (f"beside a port: {words}", Tone.PLAIN)))
    lines.append(
        (
            (f"    {palette.MORE_ABOVE} {palette.MORE_BELOW} {palette.MORE_BOTH}  ", Tone.ACCENT),
            ("before a table's titles: more rows above, below, both", Tone.PLAIN),
        )
    )
    lines.append((("    ±2 ", Tone.WARN), ("uncommitted files in the worktree", Tone.PLAIN)))
    lines.append(
        (
            ("    ━╍─", Tone.ACCENT),
            ("ports leased, resting (cooling or quarantined), free", Tone.PLAIN),
        )
    )
    lines += [(), (("  Filter", Tone.STRONG),)]
    for example, meaning in (
        ("login form", "both words, anywhere"),
        ("state:crashed,failed", "either state"),
        ("port:51", "a port that begins with 51"),
        ("!text", "not this word; works before fields too"),
    ):
        lines.append(((f"    {example:<22}", Tone.ACCENT), (meaning, Tone.PLAIN)))
    lines.append(
        (("    fields: agent backend branch feature pid port problem state worktree", Tone.DIM),)
    )
    views = [each for each in keys.VIEW_GROUPS if not (read_only and each[1] in WRITTEN_IN)]
    lines += _keys(views, own_keys, lacking, named)
    if file:
        lines += _preferences(file)
    return tuple(lines)


def _preferences(file: str) -> list[Line]:
    """What can be written into the user's own file."""
    lines: list[Line] = [(), (("  Your own theme, calls and keys", Tone.STRONG),)]
    lines.append(((f"    {sanitise(file)}", Tone.PLAIN), (", read when it changes:", Tone.DIM)))
    for text, meaning in (
        ('theme = "day"', " or ".join(theme.name for theme in palette.THEMES)),
        ('attention = "bell"', "osc9 or never: when an agent needs you, or is done"),
        ("[keys]", "by the names that a wide terminal shows here beside each key"),
        ('"agent.kill" = "ctrl+k"', "commas separate several"),
    ):
        lines.append(((f"    {text:<24}  ", Tone.ACCENT), (meaning, Tone.DIM)))
    return lines


def _keys(
    groups: Iterable[tuple[str, Iterable[BindingType]]],
    own_keys: Mapping[str, str],
    lacking: Collection[str],
    named: bool,
) -> list[Line]:
    lines: list[Line] = []
    for title, bindings in groups:
        known = (each for each in bindings if isinstance(each, Binding))
        there = [each for each in known if each.action not in lacking]
        if there:
            lines += [(), ((f"  {title}", Tone.STRONG),)]
        for binding in there:
            own = own_keys.get(binding.id or "")
            key = keys.shown_keys(binding.with_key(own) if own else binding)
            does = binding.tooltip or binding.description
            name: Line = ()
            if named and binding.id in keys.OWN:
                name = ((f"{' ' * (NAME_AT - len(does))}  {binding.id}", Tone.DIM),)
            lines.append(((f"    {key:<20}", Tone.ACCENT), (does, Tone.PLAIN), *name))
    return lines
