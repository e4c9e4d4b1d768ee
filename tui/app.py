"""The panel's App: it wires, and does nothing else.

One engine thread, one reactive snapshot that every screen is bound to, and the
route of wishes back to the engine.
"""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.message import Message
from textual.reactive import var
from textual.screen import ModalScreen

from autocoder.core.commands import Command, StopAll
from autocoder.core.engine import Engine
from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.logs import sanitise
from autocoder.core.models import Snapshot
from autocoder.tui import keys, outside
from autocoder.tui.assistant_thread import Assistance, AssistantThread
from autocoder.tui.attention import what_calls
from autocoder.tui.command_palette import PanelCommands
from autocoder.tui.engine_thread import EngineThread
from autocoder.tui.file_watch import FileWatch
from autocoder.tui.key_order import KeyOrder
from autocoder.tui.messages import (
    AssistantRequested,
    CommandsRequested,
    EngineEnded,
    PreferencesRead,
    QuestionAsked,
    QuestionRefused,
    QuitRequested,
    SettingsRead,
    SnapshotTaken,
)
from autocoder.tui.palette import ANSI_DAY, ANSI_NIGHT, THEMES
from autocoder.tui.preferences import Attention, Preferences, read_preferences
from autocoder.tui.question_thread import QuestionThread
from autocoder.tui.screens.frozen import FrozenScreen
from autocoder.tui.screens.main import MainScreen
from autocoder.tui.spans import counted

if TYPE_CHECKING:
    from autocoder.core.questions import Questions
    from autocoder.tui.live_settings import LiveSettings


@dataclass(frozen=True, slots=True)
class Departure:
    """How the panel was left, for the words after the terminal is restored."""

    snapshot: Snapshot | None
    """The last one shown."""
    error: BaseException | None = None
    """What ended the engine, where it did not end by itself."""
    interrupted: bool = False

    @property
    def live(self) -> int:
        return sum(agent.live for agent in self.snapshot.agents) if self.snapshot else 0


SETTINGS_S = 120.0
"""How long a word about the settings' files stays, unless something else is said."""
SAME_CALL_S = 60.0
"""A problem that comes and goes with every look is told once in that time."""
TOLD_S = 60.0
"""How long the addresses this panel can be had at are shown; they are on the terminal too."""


def _keep_what_is_loaded() -> None:
    """Take what the program consists of out of every later collection.

    Those took 30 to 70 ms in the middle of a key's way to the screen.
    """
    gc.collect()
    gc.freeze()


class Panel(KeyOrder[Departure]):
    TITLE = "autocoder"
    CSS_PATH = "app.tcss"
    COMMANDS = {PanelCommands}  # noqa: RUF012 - as Textual declares it
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.EVERYWHERE,
        *keys.FIXED,
    ]

    snapshot: var[Snapshot | None] = var(None, init=False, always_update=True)
    leaving: var[str] = var("", init=False)

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        project: str,
        *,
        open_questions: "Callable[[], Questions] | None" = None,
        assistance: Assistance | None = None,
        clock: Callable[[], float] = time.time,
        read_only: bool = False,
        preferences: Path | None = None,
        told: Sequence[str] = (),
        settings: "LiveSettings | None" = None,
        settings_files: Sequence[Path] = (),
    ) -> None:
        """`open_engine` and `open_questions` run in threads, after the first paint.

        Both are called again when the user takes over `settings` on offer.
        """
        no_color = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if no_color else None)
        self._engine = EngineThread(open_engine)
        self._questions = QuestionThread(open_questions) if open_questions else None
        self._assistance = assistance
        self._assistant: AssistantThread | None = None
        self._told = told
        self._read_only = read_only
        self._preferences = Preferences()
        self._preferences_file = preferences
        self._bad_preferences = False
        self._calls: dict[str, float] = {}
        self._files = (*settings_files, *filter(None, [preferences]))
        self._settings = settings
        self._run_by = ""
        """The other process that is the orchestrator."""
        self._watches: list[FileWatch] = []
        if preferences is not None:
            self._watches.append(
                FileWatch((preferences,), lambda: self._read_preferences(preferences))
            )
        if settings is not None:
            settings.may_take = not read_only
            settings.complain = lambda said: self._post(SettingsRead(said))
            if self._questions is not None:
                settings.taken = self._questions.reopen
            self._watches.append(
                FileWatch(settings_files, lambda: self._post(SettingsRead(settings.look())))
            )
        self._clock = clock
        self._main = MainScreen(clock, project, read_only=read_only)
        if settings is not None:
            self._main.settings_note = settings.note
        # Frames of an animation are what makes a slow link unbearable.
        self.animation_level = "none"
        for theme in THEMES:
            self.register_theme(theme)
        self._own_theme = "terminal" if no_color else THEMES[0].name
        self.theme = self._own_theme
        self.ansi_theme_dark = ANSI_NIGHT
        self.ansi_theme_light = ANSI_DAY

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return {"dim": "#7d8895", "faint": "#3a434e", "row": "#262c33"}

    async def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._depart)
        await self.push_screen(self._main.data_bind(Panel.snapshot, Panel.leaving))
        self.call_after_refresh(self._start_engine)
        for line in self._told:
            self.notify(line, timeout=TOLD_S, markup=False)

    def _start_engine(self) -> None:
        self._engine.start(
            lambda snapshot: self._post(SnapshotTaken(snapshot)),
            lambda error: self._post(EngineEnded(error)),
        )
        for watch in self._watches:
            watch.start()

    def _post(self, message: Message) -> None:
        if self.is_running:
            self.post_message(message)

    def on_snapshot_taken(self, message: SnapshotTaken) -> None:
        if self.snapshot is None:
            self.call_after_refresh(_keep_what_is_loaded)
            self._say_who_runs()
        else:
            if self._run_by:
                self._say_who_runs()
            self._call(what_calls(self.snapshot, message.snapshot))
        self.snapshot = message.snapshot
        if self.leaving:
            self._leave_when_stopped()

    def _say_who_runs(self) -> None:
        """Name the orchestrator, where it is another process, and whenever that changes."""
        before, self._run_by = self._run_by, self._settings.run_by() if self._settings else ""
        if self._run_by == before:
            return
        if self._run_by:
            said = f"attached to the orchestrator: {self._run_by}"
        else:
            said = f"this panel is the orchestrator now; the one before is gone: {before}"
        self._main.say(sanitise(said), seconds=TOLD_S)

    def _call(self, words: str) -> None:
        """Tell somebody who looks elsewhere, by the way they have chosen."""
        now = self._clock()
        self._calls = {said: at for said, at in self._calls.items() if now - at < SAME_CALL_S}
        if not words or words in self._calls:
            return
        self._calls[words] = now
        if self._preferences.attention is Attention.BELL:
            self.bell()
        elif self._preferences.attention is Attention.OSC9 and self._driver is not None:
            self._driver.write(outside.notification_sequence(words, os.environ))

    def _read_preferences(self, path: Path) -> None:
        try:
            self._post(PreferencesRead(read_preferences(path)))
        except UsageError as error:
            self._post(PreferencesRead(None, error.message))

    def on_settings_read(self, message: SettingsRead) -> None:
        if message.said:
            self._say_of_files(message.said)

    def _say_of_files(self, said: str) -> None:
        # With its folder, a file's name leaves no room for what is wrong in it.
        for path in self._files:
            said = said.replace(str(path), path.name)
        self._main.say(sanitise(said), seconds=SETTINGS_S)

    def on_settings_requested(self) -> None:
        refusal = self._settings.refusal() if self._settings else "no file holds settings here"
        if refusal:
            self._say_of_files(refusal)
            return
        self._main.say("taking over the settings; agents keep running")
        self._engine.reopen()

    def on_preferences_read(self, message: PreferencesRead) -> None:
        was_bad, self._bad_preferences = self._bad_preferences, message.preferences is None
        if message.preferences is None:
            self._say_of_files(f"{message.complaint}; keys and theme stay as they were")
            return
        if was_bad:
            self._main.say("keys and theme can be read again")
        if message.preferences != self._preferences:
            self._preferences = message.preferences
            self.set_keymap(message.preferences.keys)
            self._main.own_keys = message.preferences.keys
            self.theme = message.preferences.theme or self._own_theme

    def on_engine_ended(self, message: EngineEnded) -> None:
        self.exit(Departure(self.snapshot, message.error))

    def on_commands_requested(self, message: CommandsRequested) -> None:
        self.submit(*message.commands)

    def submit(self, *commands: Command) -> None:
        """Hand wishes to the engine, in this order."""
        for command in commands:
            self._engine.submit(command)

    def on_question_asked(self, message: QuestionAsked) -> None:
        def answered(answer: Future[Message]) -> None:
            if answer.cancelled():
                return
            error = answer.exception()
            message.asker.post_message(QuestionRefused(error) if error else answer.result())

        if self._questions is None:
            message.asker.post_message(QuestionRefused(RefusedError("there is nobody to ask here")))
        else:
            self._questions.ask(message.question, answered)

    def on_assistant_requested(self, message: AssistantRequested) -> None:
        if self._assistance is None:
            self._main.say("there is no assistant here")
            return
        # With the first use, like every screen that is not needed to paint.
        from autocoder.tui.screens.assistant import AssistantScreen

        assistance, agent = self._assistance, message.agent

        def open_thread() -> AssistantThread:
            self._assistant = AssistantThread(assistance, agent)
            return self._assistant

        self.push_screen(AssistantScreen(open_thread, agent))

    def on_quit_requested(self, message: QuitRequested) -> None:
        if not message.stop_agents or self.leaving:
            self._depart()
            return
        self.submit(StopAll())
        self._leave_when_stopped()

    def _leave_when_stopped(self) -> None:
        live = sum(agent.live for agent in self.snapshot.agents) if self.snapshot else 0
        if not live:
            self._depart()
        self.leaving = (
            f"stopping {counted(live, 'agent')} …   q leaves at once, they stop all the same"
        )

    def action_interrupt(self) -> None:
        if isinstance(self.screen, FrozenScreen):
            # Meant to copy what is selected, as in a graphical program.
            self.screen.thaw()
        else:
            self._depart(interrupted=True)

    def action_suspend_process(self) -> None:
        if outside.is_a_shells_job():
            super().action_suspend_process()
        else:
            self._main.say("no shell is here that could bring a suspended panel back")

    def copy_to_clipboard(self, text: str) -> None:
        self._clipboard = text
        if self._driver is not None:
            self._driver.write(outside.clipboard_sequence(text, os.environ))
        if os.environ.get("TMUX"):
            outside.copy_by_tmux(text)

    def action_freeze(self) -> None:
        self.push_screen(FrozenScreen(self._clock()))

    def action_redraw(self) -> None:
        self.refresh()

    def action_command_palette(self) -> None:
        # A dialog says itself what can be done in it.
        if not isinstance(self.screen, ModalScreen):
            super().action_command_palette()

    def action_help(self) -> None:
        # With the first use, like every screen that is not needed to paint.
        from autocoder.tui.screens.help import HANG, NAMED_WIDTH, help_lines
        from autocoder.tui.screens.sheet import SheetScreen

        lines = help_lines(
            self._main.own_keys,
            read_only=self._read_only,
            named=self.size.width >= NAMED_WIDTH,
            file=str(self._preferences_file or ""),
        )
        self.push_screen(SheetScreen("help", lines, hang=HANG))

    def _fatal_error(self) -> None:
        # Textual's own would print every local variable of every frame.
        self._close_messages_no_wait()

    @property
    def broken(self) -> Exception | None:
        """The mistake of the panel's own that ended it."""
        return self._exception

    def _depart(self, *, interrupted: bool = False) -> None:
        self.exit(Departure(self.snapshot, interrupted=interrupted))

    def stop_engine(self) -> None:
        """Let the engine's thread end, and wait for it; agents go on."""
        if self._questions is not None:
            self._questions.stop()
        for watch in self._watches:
            watch.stop()
        if self._assistant is not None:
            self._assistant.stop()
        self._engine.stop()
        self._engine.join()
        if self._assistant is not None:
            self._assistant.join()
