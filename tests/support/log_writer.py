"""Writes RATE lines a second to each of the files FOLDER/0 ... FOLDER/N-1, until killed."""

import sys
import time
from itertools import count
from pathlib import Path

BEATS = 20


def main(folder: Path, files: int, rate: int) -> None:
    opened = [(folder / str(number)).open("ab", buffering=0) for number in range(files)]
    due = time.monotonic()
    for beat in count():
        lines = b"".join(
            b"tool  run   line %08d of a log that is written at a steady rate, with text\n"
            % (beat * rate // BEATS + step)
            for step in range(rate // BEATS)
        )
        for file in opened:
            file.write(lines)
        due += 1 / BEATS
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
