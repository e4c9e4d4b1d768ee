"""Prints RATE numbered lines a second, twenty times a second, until it is ended.

Usage: python -I -S printing_program.py RATE [LINES]: after LINES of them it is silent.
"""

import os
import signal
import sys
import time

BEATS = 20


def main(rate: int, most: int = sys.maxsize) -> None:
    each = rate // BEATS
    line = 0
    due = time.monotonic()
    while line < most:
        lines = "".join(
            f"tool  run   line {line + n:08d} of a log that is written steadily, with some text\n"
            for n in range(each)
        )
        line += each
        os.write(1, lines.encode())
        due += 1 / BEATS
        time.sleep(max(0.0, due - time.monotonic()))
    signal.pause()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
