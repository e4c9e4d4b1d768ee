"""Screens are compared by what they show: zone, terminal and host name are fixed."""

import os
import time
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def fixed_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    system, _, *rest = os.uname()
    named = os.uname_result((system, "box7", *rest))
    monkeypatch.setattr(os, "uname", lambda: named)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
