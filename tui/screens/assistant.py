"""The chat with the assistant, about the project and the agent that was selected."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.screen import Screen

from autocoder.core.events import Event
from autocoder.core.models import Agent
from autocoder.tui import keys
from autocoder.tui.assistant_thread import AssistantThread
from autocoder.tui.render_assistant import (
    By,
    Part,
    assistant_lines,
    assistant_title,
    said_before,
    take_in,
    trouble,
)
from autocoder.tui.widgets.key_bar import KeyBar
from autocoder.tui.widgets.pager import Pager
from autocoder.tui.widgets.painted import TextLines
from autocoder.tui.widgets.rule import Rule
from autocoder.tui.widgets.writing import Writing

if TYPE_CHECKING:
    from autocoder.core.assistant import Said

FRAME_S = 0.05


class AssistantScreen(Screen[None]):
    """Leaving it ends the program; the conversation is gone on with the next time."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.WRITING, *keys.READING]

    class Opened(Message):
        """What was said before, or why there is no assistant."""

        def __init__(self, opened: "Future[tuple[Said, ...]]") -> None:
            super().__init__()
            self.opened = opened

    class Heard(Message):
        """The assistant says or does something."""

        def __init__(self, event: Event) -> None:
            super().__init__()
            self.event = event

    class Answered(Message):
        """The answer is over: its cost, or what went wrong."""

        def __init__(self, answer: Future[float]) -> None:
            super().__init__()
            self.answer = answer

    def __init__(self, open_thread: Callable[[], AssistantThread], agent: Agent | None) -> None:
        super().__init__()
        self._open_thread = open_thread
        self._agent = agent
        self._thread: AssistantThread | None = None
        self._parts: list[Part] = []
        self._cost = 0.0
        self._answering = False
        self._drawing = False

    def compose(self) -> ComposeResult:
        yield TextLines(id="title")
        yield Rule()
        yield Pager(follow=True, hang=0, id="said")
        yield Rule()
        yield Writing(id="question", placeholder="ask")
        yield KeyBar()

    def on_mount(self) -> None:
        self._thread = self._open_thread()
        self._thread.open(lambda opened: self._post(self.Opened(opened)))
        self.query_one(Writing).focus()
        self._draw()

    def on_unmount(self) -> None:
        if self._thread is not None:
            self._thread.stop()

    def _post(self, message: Message) -> None:
        if self.is_running:
            self.post_message(message)

    def on_assistant_screen_opened(self, message: Opened) -> None:
        if message.opened.cancelled():
            return
        error = message.opened.exception()
        if error is not None:
            self._parts.append(trouble(error))
        else:
            said = message.opened.result()
            self._parts[:0] = [said_before(each.by, each.text) for each in said]
            self._cost = max((each.cost_usd for each in said[-1:]), default=0.0)
        self._draw()

    def on_assistant_screen_heard(self, message: Heard) -> None:
        take_in(self._parts, message.event)
        if not self._drawing:
            # Words come one by one, faster than anybody reads.
            self._drawing = True
            self.set_timer(FRAME_S, self._draw)

    def on_assistant_screen_answered(self, message: Answered) -> None:
        self._answering = False
        if not message.answer.cancelled():
            error = message.answer.exception()
            if error is not None:
                self._parts.append(trouble(error))
            else:
                self._cost = message.answer.result()
        self._draw()

    def _draw(self) -> None:
        self._drawing = False
        self.query_one("#title", TextLines).lines = (
            assistant_title(self._agent, self._cost, answering=self._answering),
        )
        self.query_one(Pager).lines = assistant_lines(self._parts)

    def action_send(self) -> None:
        typed = self.query_one(Writing)
        text = typed.text.strip()
        if not text or self._answering or self._thread is None:
            return
        typed.text = ""
        self._parts.append(Part(By.HUMAN, text))
        self._answering = True
        self._draw()
        self._thread.ask(
            text,
            lambda event: self._post(self.Heard(event)),
            lambda answer: self._post(self.Answered(answer)),
        )

    def action_new_line(self) -> None:
        self.query_one(Writing).insert("\n")

    def action_scroll(self, pages: int) -> None:
        self.query_one(Pager).action_page(pages)

    def action_back(self) -> None:
        if self._answering and self._thread is not None:
            self._thread.interrupt()
        else:
            self.dismiss(None)
