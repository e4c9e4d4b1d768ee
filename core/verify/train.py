"""Branches under test in the order in which they will land on one base.

Each is tested on top of the one before it, all at once; what is ahead of a branch
may fail or move, and then everything behind it is built anew.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

POLL_S = 0.2


@dataclass(eq=False, slots=True)
class Car:
    branch: str
    commit: str = ""
    """What base becomes with it; empty until known, and again when what is ahead has changed."""
    stale: bool = False
    """What it was built on will not land."""
    aside: bool = False
    """It conflicts with a car ahead; those behind need not wait for it."""
    landed: bool = False


class Train:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._cars: list[Car] = []

    @contextlib.contextmanager
    def riding(self, branch: str) -> Iterator[Car]:
        """A place in the train, from the first coupling until the block ends."""
        car = Car(branch)
        try:
            yield car
        finally:
            with self._changed:
                if car in self._cars:
                    if not car.landed:
                        self._uncouple_behind(car)
                    self._cars.remove(car)
                self._changed.notify_all()

    @contextlib.contextmanager
    def coupling(self, car: Car, keep_on: Callable[[], None]) -> Iterator[str]:
        """The commit to build on, empty for base itself; nobody else couples in the block.

        `keep_on` is called while waiting for the car ahead, and may raise.
        """
        with self._changed:
            if car in self._cars:
                self._uncouple_behind(car)
            else:
                self._cars.append(car)
            car.commit, car.stale, car.aside = "", False, False
            while (ahead := self._ahead(car)) is not None and not ahead.commit:
                self._changed.wait(POLL_S)
                keep_on()
            yield ahead.commit if ahead is not None else ""
            self._changed.notify_all()

    def wait_until_first(self, car: Car, keep_on: Callable[[], None]) -> None:
        """Return when all cars ahead have landed or given up; `keep_on` may raise."""
        with self._changed:
            while self._cars[0] is not car:
                self._changed.wait(POLL_S)
                keep_on()

    def _ahead(self, car: Car) -> Car | None:
        ahead = self._cars[: self._cars.index(car)]
        return next((other for other in reversed(ahead) if not other.aside), None)

    def _uncouple_behind(self, car: Car) -> None:
        for behind in self._cars[self._cars.index(car) + 1 :]:
            behind.commit, behind.stale = "", True
