"""How a user wants the panel: `panel.toml` in the user's config folder, read again when it changes.

theme = "night"             # night, day or terminal
attention = "bell"          # never, bell or osc9: when an agent needs you, or finishes
[keys]
"agent.kill" = "ctrl+k"     # names as in the help; commas separate several keys
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from autocoder.core.errors import UsageError
from autocoder.core.settings import user_file
from autocoder.tui import keys
from autocoder.tui.palette import THEMES

FILE = "panel.toml"


class Attention(StrEnum):
    """How the terminal is told that an agent needs somebody, or has finished."""

    NEVER = "never"
    BELL = "bell"
    OSC9 = "osc9"
    """A message on the desktop, where the terminal knows how."""


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
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Preferences()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}", "The preferences from before stay.") from error
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
    return Preferences(theme, Attention(attention), _keymap(table.get("keys", {}), path))


def _keymap(table: Any, path: Path) -> dict[str, str]:
    screens = [{each.id: each.key for each in group if each.id} for group in keys.SCREENS]
    known = {name for screen in screens for name in screen}
    if not isinstance(table, dict):
        raise UsageError(f"{path}: keys must be a table: [keys]")
    for name, value in table.items():
        if name not in known:
            raise UsageError(f"{path}: there is no key named {name!r}")
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{path}: {name} must be a key such as 'ctrl+k', not {value!r}")
    chosen = {name: value.replace(" ", "") for name, value in table.items()}
    for screen in screens:
        taken: dict[str, str] = {}
        for name, default in screen.items():
            for key in chosen.get(name, default).split(","):
                if key in taken:
                    raise UsageError(f"{path}: {key!r} is the key of both {taken[key]} and {name}")
                taken[key] = name
    return chosen
