"""A real process in a real pseudo terminal, its screen interpreted by pyte.

Everything the process wrote is kept too, byte for byte: what an interpreter
swallows is what an attack would use.
"""

import codecs
import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyte

KEYS = {
    "enter": "\r",
    "escape": "\x1b",
    "tab": "\t",
    "space": " ",
    "backspace": "\x7f",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~",
    "ctrl+c": "\x03",
    "ctrl+p": "\x10",
}


class Terminal:
    """Use it as a context manager: on leaving, the process is dead and the pty closed."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        size: tuple[int, int] = (120, 40),
        interpret: bool = True,
    ) -> None:
        """Start `argv` with `env` added to this process's environment; `size` is columns, rows.

        Without `interpret` only `raw` is kept: pyte is far slower than the panel.
        """
        columns, rows = size
        self._interpret = interpret
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self._screen)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self.raw = bytearray()
        """Everything the process has written."""
        self._controller, terminal = pty.openpty()
        self._set_size(columns, rows)
        kind = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        surroundings = os.environ | kind | dict(env or {})
        # A size in the environment would override the terminal's own; xdist sets one.
        surroundings = {k: v for k, v in surroundings.items() if k not in ("COLUMNS", "LINES")}
        try:
            self.process = subprocess.Popen(
                [os.fspath(part) for part in argv],
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                cwd=cwd,
                env=surroundings,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        finally:
            os.close(terminal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self.hang_up()

    @property
    def text(self) -> str:
        """The screen as it is now, one line per row, without trailing blanks."""
        self._read(0)
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def written(self) -> str:
        """Everything written so far, as text."""
        self._read(0)
        return self.raw.decode("utf-8", "replace")

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, as at a shell's prompt."""
        return bool(termios.tcgetattr(self._controller)[3] & termios.ECHO)

    def press(self, *keys: str) -> None:
        """Type keys, by the names of `KEYS` or as they are; each is seen as one key."""
        for key in keys:
            os.write(self._controller, KEYS.get(key, key).encode())
            if key == "escape":
                # Alone it could begin a longer sequence: the reader decides by the pause.
                self._read(0.15)

    def wait_for(
        self, wanted: str | Callable[[str], bool], seconds: float = 15.0, what: str = ""
    ) -> str:
        """The screen as soon as it shows `wanted`; fails with the screen when it does not."""
        deadline = time.monotonic() + seconds
        while True:
            screen = self.text
            if wanted in screen if isinstance(wanted, str) else wanted(screen):
                return screen
            if time.monotonic() > deadline:
                raise AssertionError(f"not on the screen: {what or wanted!r}\n{screen}")
            if not self._read(0.05) and self.process.poll() is not None:
                time_left = min(deadline, time.monotonic() + 0.5)
                deadline = time_left

    def wait_for_bytes(self, wanted: bytes, start: int, seconds: float = 15.0) -> float:
        """Seconds until `wanted` was written after byte `start` of `raw`."""
        began = time.monotonic()
        while wanted not in self.raw[start:]:
            if time.monotonic() > began + seconds:
                raise AssertionError(f"never written: {wanted!r}")
            self._read(0.02)
        return time.monotonic() - began

    def wait_for_exit(self, seconds: float = 15.0) -> int:
        """The exit code, when the process ends within that time."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"still running:\n{self.text}")
            self._read(0.05)
        self._read(0)
        return self.process.returncode

    def resize(self, columns: int, rows: int) -> None:
        """Like a user who drags the window's corner."""
        self._read(0)
        self._screen.resize(rows, columns)
        self._set_size(columns, rows)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGWINCH)

    def kill(self) -> None:
        """SIGKILL to the process alone, and collect it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def hang_up(self) -> None:
        """Close the terminal, as a lost connection does."""
        if self._controller >= 0:
            os.close(self._controller)
            self._controller = -1

    def _set_size(self, columns: int, rows: int) -> None:
        packed = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._controller, termios.TIOCSWINSZ, packed)

    def drain(self, seconds: float) -> bool:
        """Take in what is written within that time; True when there was something."""
        return self._read(seconds)

    def _read(self, seconds: float) -> bool:
        """Take in what has been written; True when there was something."""
        found = False
        while self._controller >= 0 and select.select([self._controller], [], [], seconds)[0]:
            try:
                data = os.read(self._controller, 65536)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                # Linux: nobody has the other end open any more.
                return found
            if not data:
                return found
            self.raw += data
            if self._interpret:
                self._stream.feed(_without_queries(self._decode.decode(data)))
            found, seconds = True, 0
        return found


def _without_queries(text: str) -> str:
    # Kitty's keyboard protocol: its final letter would be drawn, pyte knows no `<` or `=`.
    return KITTY.sub("", text)


KITTY = re.compile(r"\x1b\[[<=>][\d;]*u")
