"""An agent's log as server-sent events, resumable at any byte.

The id of an event names the file by its inode and the byte after what was sent, so a
client that comes back with it misses nothing though the log was rotated meanwhile.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

CHUNK = 64 * 1024
POLL_S = 0.1
HEARTBEAT_S = 15.0


@dataclass(frozen=True, slots=True)
class Position:
    inode: int
    """0: whatever file is the log now."""
    offset: int
    """Negative: counted from the end."""

    def __str__(self) -> str:
        return f"{self.inode}:{self.offset}"


def parse_position(text: str) -> Position | None:
    """The position an event's id names; None where it is no such id."""
    inode, _, offset = text.partition(":")
    if not (inode.isascii() and inode.isdigit() and offset.isascii() and offset.isdigit()):
        return None
    return Position(int(inode[:20]), int(offset[:20]))


def read_from(log: Path, position: Position, *, whole_lines: bool) -> tuple[bytes, Position]:
    """What follows `position`, at most one chunk, and the position after it.

    Nothing, and the same position, where nothing follows or there is no file yet.
    """
    try:
        current = log.stat().st_ino
    except FileNotFoundError:
        return b"", position
    if position.inode not in (0, current):
        rotated = log.with_name(f"{log.name}.1")
        if rotated.exists() and rotated.stat().st_ino == position.inode:
            data, after = _read(rotated, position, whole_lines=False)
            if data:
                return data, after
        position = Position(current, 0)
    return _read(log, position, whole_lines=whole_lines)


def _read(path: Path, position: Position, *, whole_lines: bool) -> tuple[bytes, Position]:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        at = position.offset
        at = max(status.st_size + at, 0) if at < 0 else min(at, status.st_size)
        data = os.pread(file.fileno(), CHUNK, at)
    if b"\n" in data or (whole_lines and len(data) < CHUNK):
        data = data[: data.rfind(b"\n") + 1]
    return data, Position(status.st_ino, at + len(data))


async def events(
    log: Path,
    position: Position,
    *,
    follow: bool,
    ended: Callable[[], bool],
    closing: Callable[[], bool],
) -> AsyncIterator[str]:
    """The log from `position` on; with `follow` until `ended`, and then what is left of it.

    Breaks off, to be resumed elsewhere, once `closing`.
    """
    quiet_s = 0.0
    while not closing():
        last = not follow or ended()
        data, position = await asyncio.to_thread(read_from, log, position, whole_lines=not last)
        if data:
            quiet_s = 0.0
            text = data.decode("utf-8", "replace")
            content = json.dumps({"offset": position.offset - len(data), "text": text})
            yield f"id: {position}\nevent: log\ndata: {content}\n\n"
        elif last:
            yield f"id: {position}\nevent: end\ndata: {{}}\n\n"
            return
        else:
            await asyncio.sleep(POLL_S)
            quiet_s += POLL_S
            if quiet_s >= HEARTBEAT_S:
                quiet_s = 0.0
                # Finds out whether anybody still listens.
                yield ": nothing new\n\n"
