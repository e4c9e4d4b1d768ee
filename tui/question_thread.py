"""Questions beside the snapshot, asked one after the other in a thread of their own."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from autocoder.core.questions import Questions

Answer = TypeVar("Answer")


class QuestionThread:
    def __init__(self, open_questions: "Callable[[], Questions]") -> None:
        """`open_questions` runs in the thread, with the first question."""
        self._open = open_questions
        self._questions: Questions | None = None
        self._stale = False
        self._pool = ThreadPoolExecutor(1, "questions")

    def ask(
        self,
        question: "Callable[[Questions], Answer]",
        answered: Callable[[Future[Answer]], None],
    ) -> None:
        """`answered` is called from the thread, with the answer or what it raised."""
        self._pool.submit(self._answer, question).add_done_callback(answered)

    def reopen(self) -> None:
        """Open anew with the next question. Safe from any thread, also after `stop`."""
        self._stale = True

    def stop(self) -> None:
        """Drop what has not been asked yet; does not wait for what has."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, question: "Callable[[Questions], Answer]") -> Answer:
        if self._questions is None or self._stale:
            self._stale = False
            self._questions = self._open()
        return question(self._questions)
