"""The settings the engine runs with, and those the files hold meanwhile.

What a file says new is offered, not taken: a merged branch may have written it.
"""

from collections.abc import Callable
from typing import TypeVar

from autocoder.core.errors import AutocoderError
from autocoder.core.settings import Settings
from autocoder.core.settings_change import changes

Opened = TypeVar("Opened")
FIXED = frozenset({"database_url", "ledger_url"})
"""Where the agents' own state is kept: no engine can move there with agents at work."""


class LiveSettings:
    def __init__(self, current: Settings, read: Callable[[], Settings]) -> None:
        """`read` reads every source again; it raises `AutocoderError` for what cannot be used."""
        self.current = current
        self.offered: Settings | None = None
        self.complain: Callable[[str], object] = lambda _: None
        """Told why settings on offer could not be opened with."""
        self._read = read

    def look(self) -> str:
        """Read again; what is new or wrong, in a sentence, empty when nothing is."""
        try:
            settings = self._read()
        except AutocoderError as error:
            self.offered = None
            return f"the settings stay as they were: {error.message}"
        changed = changes(self.current, settings)
        self.offered = settings if changed else None
        if not changed:
            return ""
        said = ", ".join(f"{each.name} {each.before} → {each.after}" for each in changed)
        fixed = [each.name for each in changed if each.name in FIXED]
        if fixed:
            self.offered = None
            return f"{fixed[0]} needs a restart of the panel; changed: {said}"
        return f"U takes over changed settings, agents keep running: {said}"

    def open(self, opening: Callable[[Settings], Opened]) -> Opened:
        """Open with the settings on offer; where that fails, with those from before."""
        offered, self.offered = self.offered, None
        if offered is None:
            return opening(self.current)
        try:
            opened = opening(offered)
        except AutocoderError as error:
            self.complain(f"the settings stay as they were: {error.said}")
            return opening(self.current)
        self.current = offered
        return opened
