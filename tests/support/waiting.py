"""Waiting for a condition with a deadline: the only way a test here waits."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, seconds: float = 30.0, what: str = "") -> T:
    """The first true answer of `condition`; fails the test once `seconds` have passed."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}")
        pause.wait(0.005)
    return answer
