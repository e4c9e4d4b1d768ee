"""A search through all of a log, on a thread of its own, so that it never holds up a key."""

import threading
from collections.abc import Callable

from autocoder.core.log_files import LogFiles
from autocoder.core.log_search import Match, search


class LogSearch:
    """Under way from the start; ends when it has found a line, or has looked everywhere."""

    def __init__(
        self,
        log: LogFiles,
        words: tuple[str, ...],
        step: int,
        start: int | None,
        *,
        moved: Callable[["LogSearch"], object],
        otherwise: str,
    ) -> None:
        """`moved` is called from that thread for every further per cent, and at the end."""
        self.done = 0
        """Part of the way that is looked through, in per cent."""
        self.over = False
        self.found: Match | None = None
        """None until `over`, and then when there is none."""
        self.words = words
        self.otherwise = otherwise
        """What to say where nothing is found."""
        self._ended = False
        self._moved = moved
        self._thread = threading.Thread(
            target=self._run, args=(log, words, step, start), name="log search", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Nothing is called any more from now on, but for what is being called."""
        self._ended = True

    def join(self) -> None:
        """Returns when the thread has ended; at once, after `end`, unless a disk stalls."""
        self._thread.join()

    def _run(self, log: LogFiles, words: tuple[str, ...], step: int, start: int | None) -> None:
        log.refresh()
        for done, found in search(log, words, step, start):
            if self._ended:
                return
            self.found = found
            if done > self.done:
                self.done = done
                self._moved(self)
        self.over = True
        self._moved(self)
