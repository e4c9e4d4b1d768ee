"""The settings the engine runs with, and those the files hold meanwhile.

What a file says new is offered, not taken: a merged branch may have written it. Where
another process is the orchestrator, its settings are in force and only it can take new ones.
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
    def __init__(
        self,
        current: Settings,
        read: Callable[[], Settings],
        run_by: Callable[[], str] = str,
    ) -> None:
        """`read` reads every source again; it raises `AutocoderError` for what cannot be used.

        `run_by` names the other process that is the orchestrator; empty where there is none.
        """
        self.current = current
        self.offered: Settings | None = None
        self.said = ""
        """What the last look found new or wrong, until settings are taken over."""
        self.complain: Callable[[str], object] = lambda _: None
        """Told why settings on offer could not be opened with."""
        self.taken: Callable[[], object] = lambda: None
        """Told when an engine has been opened with other settings than before."""
        self.run_by = run_by
        self.may_take = True
        """Whether whoever reads what is said has the key to take it over."""
        self._read = read
        self._bad = False

    def look(self) -> str:
        """Read again; what is new or wrong, in a sentence, empty when nothing is."""
        was_bad = self._bad
        self.said = self._look()
        if not self.said and was_bad:
            return "the settings can be read again; they say nothing new"
        return self.said

    def _look(self) -> str:
        self.offered = None
        try:
            settings = self._read()
        except AutocoderError as error:
            self._bad = True
            return f"{error.message}; the settings stay as they were"
        self._bad = False
        changed = changes(self.current, settings)
        if not changed:
            return ""
        said = ", ".join(f"{each.name} {each.before} → {each.after}" for each in changed)
        if fixed := [each.name for each in changed if each.name in FIXED]:
            return f"{fixed[0]} needs a restart of the panel; changed: {said}"
        self.offered = settings
        if self.run_by() or not self.may_take:
            return f"the settings' files have changed, and are not in force: {said}"
        return f"U takes over changed settings, agents keep running: {said}"

    def refusal(self) -> str:
        """Why nothing can be taken over now; empty when something can."""
        if self.offered is None:
            return self.said or "the settings' files say nothing new"
        if who := self.run_by():
            return f"only {who} can take them over: U in its panel, or start it again"
        return ""

    def note(self) -> str:
        """What a reader of the current settings must know besides; empty when nothing."""
        if who := self.run_by():
            return (
                f"in force are the settings of the orchestrator, {who}; "
                "these are what this panel would run agents with"
            )
        return self.said

    def open(self, opening: Callable[[Settings], Opened]) -> Opened:
        """Open with the settings on offer; where that fails, with those from before."""
        offered, self.offered = self.offered, None
        if offered is None:
            return opening(self.current)
        self.said = ""
        try:
            opened = opening(offered)
        except AutocoderError as error:
            self.said = f"the settings stay as they were: {error.said}"
            self.complain(self.said)
            return opening(self.current)
        self.current = offered
        self.taken()
        return opened
