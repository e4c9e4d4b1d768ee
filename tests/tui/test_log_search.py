"""Claims about a search on its own thread."""

import threading
from pathlib import Path

from autocoder.core.log_files import LogFiles
from autocoder.tui.log_search import LogSearch
from support.waiting import wait_until


def test_a_search_tells_how_far_it_is_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a line of text\n" * 500_000)
    told: list[int] = []
    go_on = threading.Event()

    def moved(search: LogSearch) -> None:
        told.append(search.done)
        go_on.wait(10)

    search = LogSearch(LogFiles(tmp_path / "log"), ("x?",), 1, None, moved=moved, otherwise="")
    wait_until(lambda: told)
    search.end()
    go_on.set()
    search.join()
    assert told == [3]
    assert not search.over


def test_a_search_that_ends_by_itself_has_looked_everywhere(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a line of text\n" * 500_000 + b"Words\n")
    told: list[int] = []
    search = LogSearch(
        LogFiles(tmp_path / "log"),
        ("words",),
        1,
        None,
        moved=lambda search: told.append(search.done),
        otherwise="",
    )
    search.join()
    assert search.over
    assert search.found is not None
    assert search.found.offset == 7_500_000
    assert told == sorted(told)
    assert told[-1] == 100
