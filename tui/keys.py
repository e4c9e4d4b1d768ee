"""The one table of keys: footer, help, palette and the README are made from it.

Lower case is safe, upper case is stronger. Every binding has an id, by which a
user's keymap file names it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from textual.binding import Binding


def _key(
    name: str,
    key: str,
    action: str,
    label: str,
    tooltip: str,
    *,
    show: bool = True,
    display: str = "",
    before_text: bool = False,
) -> Binding:
    """`before_text`: a text that is being written does not get it."""
    return Binding(
        key,
        action,
        label,
        id=name,
        tooltip=tooltip,
        show=show,
        key_display=display or None,
        priority=before_text,
    )


AGENTS: Final = (
    _key("agent.spawn", "n", "spawn", "spawn", "Spawn an agent on the next feature"),
    _key(
        "agent.spawn_typed",
        "N",
        "spawn_typed",
        "spawn typed",
        "Spawn an agent on what you type",
        show=False,
    ),
    _key(
        "agent.stop",
        "x",
        "stop",
        "stop",
        "Stop the agent; its feature waits until you start it again",
    ),
    _key("agent.kill", "X", "kill", "kill", "Kill the agent's whole process tree"),
    _key(
        "agent.recover", "r", "recover", "recover", "Recover: a new agent goes on in its worktree"
    ),
    _key(
        "agent.recover_all",
        "R",
        "recover_all",
        "recover all",
        "Recover everything nobody looks after; four lists first",
        show=False,
    ),
    _key("agent.merge", "m", "merge", "merge", "Merge the agent's finished branch", show=False),
    _key("agent.tell", "t", "tell", "tell", "Tell a running agent something", show=False),
    _key("pool.expand", "e", "expand", "extend ports", "Extend the port pools"),
    _key("engine.pause", "p", "pause", "pause", "Pause or resume: no new agents by itself"),
)
CHOOSING: Final = (
    _key(
        "mark", "space", "mark", "mark", "Mark the agent; keys then act on all marked", show=False
    ),
    _key("mark.all", "asterisk", "mark_all", "mark all", "Mark all shown, or none", show=False),
    _key("filter", "slash", "filter", "filter", "Filter: state:crashed port:51 !text"),
    _key("problems", "exclamation_mark", "problems", "problems", "Show problems only"),
    _key("problems.next", "w", "next_problem", "next", "Go to the next problem", show=False),
    _key("notices", "M", "notices", "notices", "Every notice so far, in full", show=False),
)
VIEWS: Final = (
    _key("log.focus", "enter,l", "focus_log", "log", "Go to the agent's log", display="⏎"),
    _key("wall", "v", "wall", "wall", "Wall: the logs of all marked, or all live, agents"),
    _key("ports", "P", "ports", "ports", "Ports: every lease, listener and quarantined port"),
    _key("features", "F", "features", "features", "Features: the backlog", show=False),
    _key("details", "i", "details", "details", "Details: process tree, environment, how it ended"),
    _key("diff", "d", "diff", "diff", "The agent's changes against base"),
    _key("assistant", "a", "assistant", "assistant", "Assistant: talk about the project"),
    _key(
        "worktrees",
        "W",
        "worktrees",
        "worktrees",
        "Worktrees: their sizes, and which can be removed without loss",
        show=False,
    ),
    _key("events", "H", "events", "events", "What has happened in this project", show=False),
    _key(
        "settings",
        "comma",
        "settings",
        "settings",
        "Every setting and where it came from",
        show=False,
    ),
    _key(
        "settings.take",
        "U",
        "take_settings",
        "take settings",
        "Take over changed settings; agents keep running",
        show=False,
    ),
    _key("zoom", "z", "zoom", "zoom", "Give the focused pane the whole screen"),
    _key(
        "back",
        "escape",
        "back",
        "back",
        "Back: leave the pane, then the zoom, then the filter, then the marks",
        show=False,
        display="esc",
    ),
)
OUTSIDE: Final = (
    _key("copy", "y", "copy", "copy URL", "Copy the agent's URL to your clipboard", show=False),
    _key("urls", "o", "urls", "URLs", "Show the agent's URLs, branch and folder", show=False),
    _key(
        "ssh",
        "L",
        "ssh",
        "ssh -L",
        "The ssh line that brings its ports to your machine",
        show=False,
    ),
    _key(
        "shell",
        "dollar_sign",
        "shell",
        "shell",
        "A shell in its worktree, with its environment",
        show=False,
    ),
    _key("editor", "E", "editor", "editor", "Open its log in your editor", show=False),
    _key("palette", "colon,ctrl+p", "palette", "palette", "Find any command or agent", display=":"),
    _key("theme", "T", "theme", "theme", "Next theme", show=False),
)
LEAVING: Final = (
    _key("quit", "q", "quit", "quit", "Quit; agents keep running"),
    _key("quit.stop", "Q", "stop_all", "stop all", "Stop every agent and quit", show=False),
)
EVERYWHERE: Final = (
    _key("help", "question_mark", "help", "help", "All keys and glyphs", display="?"),
    _key(
        "freeze",
        "Z",
        "freeze",
        "freeze",
        "Freeze the picture, to select and copy text; any key goes on",
        show=False,
    ),
    _key("redraw", "ctrl+l", "redraw", "redraw", "Draw the whole screen anew", show=False),
)
FIXED: Final = (
    Binding(
        "ctrl+c",
        "interrupt",
        "quit",
        tooltip="Quit at once, also out of a dialog; agents keep running",
        show=False,
        priority=True,
        system=True,
    ),
    Binding(
        "ctrl+z",
        "suspend_process",
        "suspend",
        tooltip="Suspend the panel, where a shell can bring it back",
        show=False,
        system=True,
    ),
)
"""Keys of every terminal program: nobody rebinds them."""
MAIN: Final = (*AGENTS, *CHOOSING, *VIEWS, *OUTSIDE, *LEAVING)

PORTS: Final = (
    _key("ports.agent", "enter", "go_to_agent", "its agent", "Go to the agent that holds the port"),
    _key(
        "ports.release",
        "R",
        "release",
        "release",
        "Release a port whose holder is no more, or end a quarantine once it is free",
    ),
    _key("ports.probe", "c", "probe", "probe now", "Look now whether a kept-out port is free"),
    _key("ports.expand", "e", "expand", "extend", "Extend the port pools"),
    _key("ports.filter", "slash", "filter", "filter", "Filter: every word somewhere in the row"),
    _key("ports.back", "escape,q,P", "back", "back", "Back", display="esc"),
)
FEATURES: Final = (
    _key(
        "features.details",
        "enter,i",
        "details",
        "details",
        "Everything the backlog knows of a feature",
        display="⏎",
    ),
    _key("features.spawn", "n", "spawn", "spawn on it", "Spawn an agent on the feature"),
    _key("features.retry", "r", "retry", "retry", "Retry: claimable now, attempts back to none"),
    _key("features.merge", "m", "merge", "merge", "Merge its finished branch"),
    _key("features.enable", "o", "enable", "on/off", "Let it be claimed, or keep it from that"),
    _key("features.raise", "plus,equals_sign", "raise", "sooner", "Claim it before the one above"),
    _key("features.lower", "minus", "lower", "later", "Claim it after the one below"),
    _key("features.mark", "space", "mark", "mark", "Mark it; keys then act on all marked"),
    _key("features.back", "escape,q,F", "back", "back", "Back", display="esc"),
)
WORKTREES: Final = (
    _key("worktrees.mark", "space", "mark", "tick", "Tick the worktree, or take the tick away"),
    _key("worktrees.all", "asterisk", "mark_all", "tick all", "Tick all that can go, or none"),
    _key("worktrees.remove", "X", "remove", "remove", "Remove the ticked worktrees"),
    _key("worktrees.look", "u", "look", "look again", "Look at the disk again"),
    _key("worktrees.back", "escape,q,W", "back", "back", "Back", display="esc"),
)
WALL: Final = (
    _key("wall.agent", "enter", "go_to_agent", "its log", "Go to the agent of the chosen pane"),
    _key("wall.back", "escape,q,v", "back", "back", "Back", display="esc"),
)
WRITING: Final = (
    _key("write.send", "enter", "send", "send", "Send what is typed"),
    _key("write.line", "ctrl+j", "new_line", "new line", "Begin another line"),
    _key(
        "write.leave",
        "escape",
        "back",
        "back",
        "End the answer under way, else leave",
        display="esc",
    ),
)
SPAWNING: Final = (
    _key("spawn.go", "enter", "spawn", "spawn", "Spawn, if it would not be refused"),
    _key("spawn.leave", "escape", "leave", "leave", "Leave; nothing is spawned", display="esc"),
)
READING: Final = (
    _key("read.up", "pageup", "scroll(-1)", "up", "Scroll what was said", before_text=True),
    _key("read.down", "pagedown", "scroll(1)", "down", "Scroll back", before_text=True, show=False),
)

FOOTER: Final = (
    *("agent.spawn", "agent.stop", "agent.kill", "agent.recover", "log.focus", "ports"),
    *("filter", "problems", "wall", "details", "diff", "pool.expand", "engine.pause"),
    *("assistant", "zoom", "palette", "help", "quit"),
)
"""Names of the keys of the main screen that its footer shows, as far as there is room."""

MAIN_GROUPS: Final = (
    ("Agents", AGENTS),
    ("Choosing", CHOOSING),
    ("Views", VIEWS),
    ("Beside the panel", OUTSIDE),
    ("Leaving", LEAVING),
    ("In every view", (*EVERYWHERE, *FIXED)),
)
VIEW_GROUPS: Final = (
    ("In the ports view", PORTS),
    ("In the features view", FEATURES),
    ("In the worktrees view", WORKTREES),
    ("On the wall", WALL),
    ("While spawning on what is typed", SPAWNING),
    ("While writing to an agent or the assistant", (*WRITING, *READING)),
)
GROUPS: Final = (*MAIN_GROUPS, *VIEW_GROUPS)
SCREENS: Final = (
    *((*view, *EVERYWHERE) for view in (MAIN, PORTS, FEATURES, WORKTREES, WALL)),
    SPAWNING,
    (*WRITING, *READING),
)
"""Keys that apply at the same time; between two of these a key may mean different things."""
OWN: Final = frozenset(each.id for screen in SCREENS for each in screen if each.id)
"""Names of the keys that a user may choose, in `panel.toml`."""


def shown_key(binding: Binding) -> str:
    """How the key is written where there is room for one."""
    return binding.key_display or shown_keys(binding)


def shown_keys(binding: Binding) -> str:
    """Every key of the binding, as the help and the README write them."""
    names = {
        "pagedown": "PgDn",
        "pageup": "PgUp",
        "down": "↓",
        "up": "↑",
        "slash": "/",
        "escape": "esc",
        "enter": "⏎",
        "question_mark": "?",
        "space": "space",
        "exclamation_mark": "!",
        "asterisk": "*",
        "colon": ":",
        "dollar_sign": "$",
        "comma": ",",
        "plus": "+",
        "equals_sign": "=",
        "minus": "-",
        "ctrl+j": "^J",
    }
    return " ".join(names.get(key, key) for key in binding.key.split(","))


def as_markdown(groups: Iterable[tuple[str, Sequence[Binding]]] = GROUPS) -> str:
    """The table of keys for the README."""
    rows = ["| key | does |", "|---|---|"]
    for title, bindings in groups:
        if bindings[0] not in MAIN:
            rows.append(f"| | **{title}** |")
        rows += [f"| `{shown_keys(binding)}` | {binding.tooltip} |" for binding in bindings]
    return "\n".join(rows)
