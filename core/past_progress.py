"""How far agents got that had ended before this orchestrator began: by what their backends said.

Their run folders are read once, the latest first and some at a time, by git's threads:
neither the first picture nor the loop waits for five hundred files.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from autocoder.core.events import Progress, progress_at_end
from autocoder.core.git_threads import GitThreads
from autocoder.core.launcher import run_folder
from autocoder.core.observer import fit_for_a_screen

READ_TOGETHER = 25


class PastProgress:
    """Called from the orchestrator's thread."""

    def __init__(self, project_dir: Path, git: GitThreads) -> None:
        self._project_dir = project_dir
        self._git = git
        self._known: dict[str, Progress] = {}
        self._unread: list[str] = []
        self._reading: Future[dict[str, Progress]] | None = None

    def of(self, agent_id: str) -> Progress:
        """What is known so far."""
        return self._known.get(agent_id, Progress())

    def want(self, agent_ids: Sequence[str]) -> None:
        """Read these from the next `collect` on, in this order; forget whatever else was read."""
        self._known = {each: self._known[each] for each in agent_ids if each in self._known}
        self._unread = [each for each in agent_ids if each not in self._known]

    def collect(self) -> bool:
        """Take in what was read since, and read on; whether there was anything."""
        done = self._reading is not None and self._reading.done()
        if self._reading is not None and done:
            self._known |= self._reading.result()
            self._reading = None
            self._unread = [each for each in self._unread if each not in self._known]
        if self._reading is None and self._unread:
            together = self._unread[:READ_TOGETHER]
            self._reading = self._git.submit(lambda: self._read(together))
        return done

    def _read(self, agent_ids: Sequence[str]) -> dict[str, Progress]:
        return {
            agent_id: fit_for_a_screen(progress_at_end(run_folder(self._project_dir, agent_id)))
            for agent_id in agent_ids
        }
