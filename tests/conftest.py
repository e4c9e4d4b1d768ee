"""What every test may ask for: ports nobody else uses, and an environment of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.sockets import reserved_ports


@pytest.fixture
def ports() -> Iterator[range]:
    """A hundred consecutive ports that no other test uses."""
    with reserved_ports() as reserved:
        yield reserved


@pytest.fixture
def pair(ports: range) -> tuple[int, int]:
    """An API and a web port."""
    return ports[0], ports[1]


@pytest.fixture(autouse=True)
def own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test meets the user's ledger, settings or git identity, nor leaves anything there."""
    home: Path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.invalid")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
