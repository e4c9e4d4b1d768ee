"""How a user wants the panel: `panel.toml` in the user's config folder, read again when it changes.

theme = "night"             # night, day or terminal
bell = true                 # ring when an agent needs attention
[keys]
"agent.kill" = "ctrl+k"     # names as in the help; commas separate several keys
"""

import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autocoder.core.errors import UsageError
from autocoder.core.settings import user_file
from autocoder.tui import keys
from autocoder.tui.palette import THEMES

FILE = "panel.toml"


@dataclass(frozen=True, slots=True)
class Preferences:
    theme: str = ""
    """Empty: the panel's own choice."""
    bell: bool = False
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
    unknown = set(table) - {"theme", "bell", "keys"}
    if unknown:
        raise UsageError(f"{path}: there is no preference {min(unknown)!r}")
    theme, bell = table.get("theme", ""), table.get("bell", False)
    if theme not in ("", *(known.name for known in THEMES)):
        known_names = ", ".join(each.name for each in THEMES)
        raise UsageError(f"{path}: theme must be one of {known_names}, not {theme!r}")
    if not isinstance(bell, bool):
        raise UsageError(f"{path}: bell must be true or false, not {bell!r}")
    return Preferences(theme, bell, _keymap(table.get("keys", {}), path))


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


class PreferencesWatch:
    """Reads the file at once and whenever it changes, in a thread."""

    def __init__(
        self,
        path: Path,
        changed: Callable[[Preferences], object],
        refused: Callable[[UsageError], object],
    ) -> None:
        """Both are called from the thread."""
        self._path = path
        self._changed = changed
        self._refused = refused
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="preferences", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        # Imported here, after the first paint: it is needed only from then on.
        from watchfiles import watch

        self._read()
        if not self._path.parent.is_dir():
            return
        for changes in watch(self._path.parent, stop_event=self._stop, recursive=False):
            if any(Path(name) == self._path for _, name in changes):
                self._read()

    def _read(self) -> None:
        try:
            self._changed(read_preferences(self._path))
        except UsageError as error:
            self._refused(error)
