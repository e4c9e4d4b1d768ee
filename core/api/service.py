"""What the routes act on: the engine by its two verbs, the ledger and the project's files.

Everything that may block goes through `blocking`, one call at a time in one thread,
which is also what the project database wants. Only so many calls may wait there.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from autocoder.core.api.feed import Feed
from autocoder.core.api.problems import Refusal
from autocoder.core.commands import Command
from autocoder.core.errors import DatabaseError
from autocoder.core.models import Snapshot
from autocoder.core.ports import PortAllocator
from autocoder.core.store import FeatureDraft, ProjectStore

T = TypeVar("T")

MOST_WAITING = 64
FIRST_SNAPSHOT_S = 10.0


class Service:
    """Used from one event loop."""

    def __init__(
        self,
        *,
        project_dir: Path,
        submit: Callable[[Command], None],
        feed: Feed,
        open_allocator: Callable[[], PortAllocator],
        open_store: Callable[[], ProjectStore],
        check_choice: Callable[[FeatureDraft], None],
    ) -> None:
        """The two are opened when first needed, in the thread that uses them.

        `check_choice` raises where a feature could not be run here; it may ask git.
        """
        self.project_dir = project_dir
        self.submit = submit
        self.feed = feed
        self._open_allocator = open_allocator
        self._open_store = open_store
        self.check_choice = check_choice
        self._allocator: PortAllocator | None = None
        self._store: ProjectStore | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="api")
        self._waiting = 0
        self._answering: dict[str, tuple[str, asyncio.Future[Any]]] = {}
        """Requests under way that have a key."""

    def wish(self, command: Command, **about: object) -> dict[str, Any]:
        """Give the engine a command; what to answer whoever sent it."""
        self.submit(command)
        return {"accepted": {"command": type(command).__name__} | about}

    async def snapshot(self) -> Snapshot:
        """The latest. Raises `Refusal` where there is none yet."""
        latest = self.feed.latest or await self.feed.next_after(None, FIRST_SNAPSHOT_S)
        if latest is None:
            raise Refusal(503, "the orchestrator has not said anything yet")
        return latest

    async def with_ledger(self, work: Callable[[PortAllocator], T]) -> T:
        def run() -> T:
            if self._allocator is None:
                self._allocator = self._open_allocator()
            return work(self._allocator)

        return await self.blocking(run)

    async def with_store(self, work: Callable[[ProjectStore], T]) -> T:
        def run() -> T:
            if self._store is None:
                self._store = self._open_store()
            return work(self._store)

        return await self.blocking(run)

    async def blocking(self, work: Callable[[], T]) -> T:
        """Run `work` when its turn comes. Raises `Refusal` where too many wait already."""
        if self._waiting >= MOST_WAITING:
            raise Refusal(429, "too many requests wait for the ledger or the database")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1

    async def once(self, key: str, asked: object, answer: Callable[[], Any]) -> Any:
        """`await answer()`, or what it gave when the same was asked under the same key before.

        Kept in the project's database as soon as it is done; a failure is not kept.

        Raises:
            Refusal: something else was asked under that key.
        """
        if not key:
            return await answer()
        fingerprint = hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass")).hexdigest()
        known = self._answering.get(key)
        if known is None:
            doing = asyncio.ensure_future(self._answer_once(key, fingerprint, answer))
            doing.add_done_callback(lambda _: self._answering.pop(key, None))
            known = self._answering[key] = (fingerprint, doing)
        elif known[0] != fingerprint:
            raise _used()
        return await asyncio.shield(known[1])

    async def _answer_once(self, key: str, fingerprint: str, answer: Callable[[], Any]) -> Any:
        kept = await self.with_store(lambda store: store.kept_answer(key))
        if kept is not None:
            if kept[0] != fingerprint:
                raise _used()
            return kept[1]
        given = await answer()
        # It was done, and that is what must be said, whether or not it can be remembered.
        with contextlib.suppress(DatabaseError, Refusal):
            await self.with_store(lambda store: store.keep_answer(key, fingerprint, given))
        return given

    def close(self) -> None:
        """Let go of ledger and database, when what runs has ended."""

        def let_go() -> None:
            if self._allocator is not None:
                self._allocator.close()
            if self._store is not None:
                self._store.close()

        self._thread.submit(let_go)
        self._thread.shutdown(wait=True)


def _used() -> Refusal:
    return Refusal(422, "that idempotency key was used for another request")
