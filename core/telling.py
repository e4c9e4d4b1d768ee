"""A human's message to a running agent, handed over in files of its run folder.

The agent's process takes messages between two of its turns; each is taken once, in
the order they were told, also by a process that starts after they were.
"""

import contextlib
import os
import time
from pathlib import Path

from autocoder.core.errors import UsageError

FOLDER = "told"
LONGEST = 20_000
"""Characters of one message."""


def tell(run_folder: Path, text: str) -> None:
    """Afterwards the message waits for the agent.

    Raises:
        UsageError: it is empty or endless.
        OSError: the run folder cannot be written.
    """
    message = text.strip()
    if not message or len(message) > LONGEST:
        raise UsageError(f"a message has between 1 and {LONGEST} characters, not {len(message)}")
    folder = run_folder / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    name = f"{time.time_ns():020d}-{os.getpid()}"
    unfinished = folder / f".{name}"
    unfinished.write_text(message, "utf-8", errors="replace")
    unfinished.rename(folder / name)


def take(run_folder: Path) -> list[str]:
    """Messages that nobody has taken yet, oldest first; they are gone afterwards."""
    folder = run_folder / FOLDER
    messages: list[str] = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if not path.name.startswith("."):
                messages.append(path.read_text("utf-8", "replace"))
                path.unlink()
    return messages


def waits(run_folder: Path) -> bool:
    """Whether a message has not been taken yet."""
    try:
        with os.scandir(run_folder / FOLDER) as entries:
            return any(not entry.name.startswith(".") for entry in entries)
    except OSError:
        return False
