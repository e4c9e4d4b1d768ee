"""What crosses between the engine's thread, the App and its screens.

Facts are in the past tense, wishes end in Requested; commands themselves are
the engine's words (`autocoder.core.commands`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.message import Message
from textual.message_pump import MessagePump

from autocoder.core.commands import Command, SpawnAgent
from autocoder.core.models import Agent, Snapshot, WorktreeStatus
from autocoder.tui.preferences import Preferences
from autocoder.tui.spans import Line

if TYPE_CHECKING:
    from autocoder.core.questions import Growth, Questions, SpawnForecast

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
    """A person wants to look closer; the answer goes to `asker`, or a `QuestionRefused`."""

    def __init__(self, question: "Callable[[Questions], Message]", asker: MessagePump) -> None:
        super().__init__()
        self.question = question
        self.asker = asker


class QuestionRefused(Message):
    """Why there is no answer."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class PageAnswered(Message):
    """What there is to read."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page


class GrowthAnswered(Message):
    """By which blocks pools could grow."""

    def __init__(self, growth: "tuple[Growth, ...]", amount: int) -> None:
        super().__init__()
        self.growth = growth
        self.amount = amount


class WorktreesAnswered(Message):
    """What a clean-up could remove, and what it could not."""

    def __init__(self, worktrees: tuple[WorktreeStatus, ...]) -> None:
        super().__init__()
        self.worktrees = worktrees


class SpawnForeseen(Message):
    """What a wish to spawn would get."""

    def __init__(self, wish: SpawnAgent, forecast: "SpawnForecast") -> None:
        super().__init__()
        self.wish = wish
        self.forecast = forecast


class SettingsRead(Message):
    """What the settings' files say new, or what is wrong with them; empty when nothing is."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self.said = said


class SettingsRequested(Message):
    """The user wants the settings that the files hold now."""


class AssistantRequested(Message):
    """The user wants to talk, about an agent or the project alone."""

    def __init__(self, agent: Agent | None) -> None:
        super().__init__()
        self.agent = agent


class PreferencesRead(Message):
    """The user's file was read, or refused for a reason."""

    def __init__(self, preferences: Preferences | None, complaint: str = "") -> None:
        super().__init__()
        self.preferences = preferences
        self.complaint = complaint
