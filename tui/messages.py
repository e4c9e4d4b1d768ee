"""What crosses between the engine's thread, the App and its screens.

Facts are in the past tense, wishes end in Requested; commands themselves are
the engine's words (`autocoder.core.commands`).
"""

from collections.abc import Callable, Sequence

from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget

from autocoder.core.commands import Command
from autocoder.core.models import PoolStatus, Role, Snapshot
from autocoder.core.questions import Growth, Questions
from autocoder.tui.preferences import Preferences
from autocoder.tui.spans import Line

Page = tuple[Line, ...]


class SnapshotTaken(Message):
    """The engine has published; of several waiting ones only the last counts."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SnapshotTaken)


class EngineEnded(Message):
    """The engine's thread is over; with the error, where it did not end by itself."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error


class CommandsRequested(Message):
    """The user wants these done, in this order."""

    def __init__(self, *commands: Command) -> None:
        super().__init__()
        self.commands = commands


class QuitRequested(Message):
    """The user wants to leave, with or without stopping every agent first."""

    def __init__(self, *, stop_agents: bool) -> None:
        super().__init__()
        self.stop_agents = stop_agents


class QuestionAsked(Message):
    """A person wants to look closer; the page goes to `sheet` as `PageAnswered`."""

    def __init__(self, question: Callable[[Questions], Page], sheet: Screen[None]) -> None:
        super().__init__()
        self.question = question
        self.sheet = sheet


class GrowthAsked(Message):
    """The user considers extending pools; the answer goes to `screen` as `GrowthAnswered`."""

    def __init__(
        self, pools: Sequence[PoolStatus], roles: Sequence[Role], amount: int, screen: Widget
    ) -> None:
        super().__init__()
        self.pools = pools
        self.roles = roles
        self.amount = amount
        self.screen = screen


class GrowthAnswered(Message):
    """By which blocks pools could grow."""

    def __init__(self, growth: tuple[Growth, ...], amount: int) -> None:
        super().__init__()
        self.growth = growth
        self.amount = amount


class PageAnswered(Message):
    """What there is to read, or why there is not."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page


class PreferencesRead(Message):
    """The user's file was read, or refused for a reason."""

    def __init__(self, preferences: Preferences | None, complaint: str = "") -> None:
        super().__init__()
        self.preferences = preferences
        self.complaint = complaint
