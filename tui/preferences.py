"""How a user wants the panel: `panel.toml` in the user's config folder, read again when it changes.

theme = "night"             # night, day or terminal
attention = "bell"          # never, bell or osc9: when an agent needs you, or finishes
[keys]
"agent.kill" = "ctrl+k"     # names as in the help (`?`); commas separate several keys
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from textual.binding import Binding
from textual.keys import KEY_TO_UNICODE_NAME, REPLACED_KEYS, Keys

from autocoder.core.errors import UsageError
from autocoder.core.settings import user_file
from autocoder.core.settings_values import flatten, read_toml
from autocoder.tui import keys
from autocoder.tui.palette import THEMES

FILE = "panel.toml"
MODIFIERS = frozenset({"ctrl", "shift", "alt", "super", "hyper", "meta"})
KEY_NAMES = frozenset(key.value.rpartition("+")[2] for key in Keys)


class Attention(StrEnum):
    """How the terminal is told that an agent needs somebody, or has finished."""

    NEVER = "never"
    BELL = "bell"
    OSC9 = "osc9"
    """A message on the desktop, where the terminal knows how; in tmux with `allow-passthrough`."""


@dataclass(frozen=True, slots=True)
class Preferences:
    theme: str = ""
    """Empty: the panel's own choice."""
    attention: Attention = Attention.NEVER
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys by the name of their binding."""


def preferences_file() -> Path:
    return user_file().with_name(FILE)


def read_preferences(path: Path) -> Preferences:
    """What the file says; without one, the defaults.

    Raises:
        UsageError: it cannot be read or means nothing; names file and entry.
    """
    table = read_toml(path)
    unknown = set(table) - {"theme", "attention", "keys"}
    if unknown:
        raise UsageError(f"{path}: there is no preference {min(unknown)!r}")
    theme, attention = table.get("theme", ""), table.get("attention", "never")
    if theme not in ("", *(known.name for known in THEMES)):
        known_names = ", ".join(each.name for each in THEMES)
        raise UsageError(f"{path}: theme must be one of {known_names}, not {theme!r}")
    if attention not in tuple(Attention):
        known_names = ", ".join(Attention)
        raise UsageError(f"{path}: attention must be one of {known_names}, not {attention!r}")
    return Preferences(theme, Attention(attention), _keymap(table.get("keys"), path))


def _keymap(given: Any, path: Path) -> dict[str, str]:
    if not isinstance(given, dict | None):
        raise UsageError(f"{path}: keys must be a table: [keys]")
    # Without quotes a dotted name is a table in TOML.
    table = flatten(given or {})
    screens = [{each.id: each.key for each in group if each.id} for group in keys.SCREENS]
    known = {name for screen in screens for name in screen}
    for name, value in table.items():
        if name not in known:
            raise UsageError(f"{path}: there is no key named {name!r}")
        if not isinstance(value, str) or not all(map(_is_key, value.replace(" ", "").split(","))):
            raise UsageError(f"{path}: {name} must be a key such as 'ctrl+k', not {value!r}")
    chosen = {name: _names(value.replace(" ", "")) for name, value in table.items()}
    for screen in screens:
        taken = {"ctrl+c": "quitting at once"}
        for name, default in screen.items():
            for key in chosen.get(name, default).split(","):
                if key in taken:
                    raise UsageError(f"{path}: {key!r} is the key of both {taken[key]} and {name}")
                taken[key] = name
    return chosen


def _names(keys: str) -> str:
    """Keys as Textual names them: `/` and `slash` are one key."""
    return ",".join(each.key for each in Binding.make_bindings([Binding(keys, "")]))


def _is_key(key: str) -> bool:
    """Whether a terminal could ever send it."""
    *modifiers, name = key.split("+")
    if len(key) == 1:
        return key.isprintable()
    if not set(modifiers) <= MODIFIERS or (len(name) == 1 and "shift" in modifiers):
        return False  # a capital letter is a key of its own
    return name.isalnum() if len(name) == 1 else name in KEY_NAMES or _is_sign(name)


def _is_sign(name: str) -> bool:
    plain = REPLACED_KEYS.get(name, name)
    try:
        unicodedata.lookup(KEY_TO_UNICODE_NAME.get(plain, plain.replace("_", " ")))
    except KeyError:
        return False
    return True
