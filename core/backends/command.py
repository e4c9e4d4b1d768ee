"""Runs an agent program and reads what it says: the backend of every program but claude.

A process between the worker and the program. The program's last word decides how the
run went, then its exit code; a human's message ends the program politely and starts
it again in the same conversation.
"""

import argparse
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from autocoder.core import telling
from autocoder.core.backends.parsers import PARSERS, Parser
from autocoder.core.backends.programs import PROGRAMS, Invocation, Program, own_command
from autocoder.core.backends.reporting import Reporter
from autocoder.core.backends.run import Run, read_run
from autocoder.core.errors import AutocoderError
from autocoder.core.events import (
    Event,
    Finished,
    Outcome,
    Started,
    Text,
    Told,
    ToolStart,
    Warned,
)

NOT_STARTED = 127
POLL_S = 0.3
INTERRUPT_GRACE_S = 5.0
LONGEST_LINE = 32 << 20
"""Bytes; more without a line's end is cut."""


class Runner:
    """One program, from its first start to the end of its last."""

    def __init__(self, run: Run, program: Program, parser: Parser, reporter: Reporter) -> None:
        self._run = run
        self._program = program
        self._parser = parser
        self._reporter = reporter
        self._stopping = False
        self._code = 0
        self._heard = False
        """Whether the model has answered anything."""

    def hold(self) -> int:
        """This process's own exit code, once the program has ended for good."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        run, program = self._run, self._program
        resumed = False
        if run.resume_id and program.resume is not None:
            resumed = True
            invocation = program.resume(run, run.resume_id, run.prompt)
            self._parser.conversation = run.resume_id
            self._report(Started(run.backend, run.model, run.resume_id, resumed=True))
        else:
            invocation = program.start(run)
            self._note(Started(run.backend, run.model))
        while True:
            try:
                self._code = self._exchange(invocation)
            except OSError as error:
                self._reporter.say(f"{invocation.command[0]} cannot be started: {error.strerror}")
                return NOT_STARTED
            if resumed and self._is_gone():
                resumed = False
                said = self._parser.finished.reason if self._parser.finished else ""
                self._report(Warned(f"begins anew, as the earlier conversation is gone: {said}"))
                self._parser.finished, self._parser.conversation = None, ""
                invocation = program.start(run)
                continue
            messages = [] if self._stopping else self._messages()
            if not messages:
                return self._end()
            for text in messages:
                self._reporter.report(Told(text))
            assert program.resume is not None
            self._parser.finished = None
            told = "The person who runs you says:\n\n" + "\n\n".join(messages)
            invocation = program.resume(run, self._parser.conversation, told)

    def _is_gone(self) -> bool:
        """Whether the program could not take the conversation up: it failed before any answer."""
        ended_by_us = self._stopping or telling.waits(self._run.folder)
        return self._code != 0 and not self._heard and not ended_by_us

    def _exchange(self, invocation: Invocation) -> int:
        """Run the program once; its exit code, negative for a signal."""
        given = self._run.folder / "stdin"
        given.write_text(invocation.stdin, "utf-8", "replace")
        with given.open("rb") as prompt:
            process = subprocess.Popen(
                invocation.command,
                stdin=prompt,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if self._parser.shows_lines else subprocess.PIPE,
                env={**os.environ, **invocation.environment},
            )
        interrupted_at: float | None = None
        with selectors.DefaultSelector() as selector:
            output = [stream for stream in (process.stdout, process.stderr) if stream is not None]
            held: dict[int, bytes] = {}
            for stream in output:
                os.set_blocking(stream.fileno(), False)
                held[stream.fileno()] = b""
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(POLL_S):
                    if not self._pump(key.fd, held):
                        selector.unregister(key.fileobj)
                if process.poll() is not None and not selector.select(0):
                    break  # what still holds the pipe is a server it left, not the program
                if (
                    interrupted_at is None
                    and self._can_be_told()
                    and telling.waits(self._run.folder)
                ):
                    interrupted_at = time.monotonic()
                    process.send_signal(signal.SIGINT)
                elif interrupted_at and time.monotonic() - interrupted_at > INTERRUPT_GRACE_S:
                    process.kill()
            for rest in held.values():
                self._line(rest)
            for stream in output:
                stream.close()
        for event in self._parser.close():
            self._report(event)
        return process.wait()

    def _pump(self, fd: int, held: dict[int, bytes]) -> bool:
        """Read what is there and deal with whole lines; False at the end of the output."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        if not data:
            return False
        *lines, rest = (held[fd] + data).split(b"\n")
        for line in lines:
            self._line(line)
        held[fd] = rest[-LONGEST_LINE:]
        return True

    def _line(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip("\r")
        events = self._parser.read(line)
        if (self._parser.shows_lines or events is None) and line:
            self._reporter.say(line)
        for event in events or ():
            self._report(event)

    def _report(self, event: Event) -> None:
        self._heard |= isinstance(event, Text | ToolStart)
        if self._parser.shows_lines:
            self._note(event)
        else:
            self._reporter.report(event)

    def _note(self, event: Event) -> None:
        """For the panel alone; the human sees the program's own words."""
        self._reporter.note(event)

    def _can_be_told(self) -> bool:
        return self._program.resumes and bool(self._parser.conversation)

    def _messages(self) -> list[str]:
        return telling.take(self._run.folder) if self._can_be_told() else []

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _end(self) -> int:
        if self._stopping:
            self._reporter.report(Finished(Outcome.INTERRUPTED, "interrupted"))
            return 130
        finished = self._parser.finished
        if finished is None:
            # Its own last line says why better than we can.
            outcome = Outcome.SUCCESS if self._code == 0 else Outcome.FAILED
            ended = f"{self._program.executable} ended with code {self._code}"
            self._note(Finished(outcome, "" if self._code == 0 else ended))
            return self._code
        self._reporter.report(finished)
        return 0 if finished.outcome is Outcome.SUCCESS else max(self._code, 1)


def main(arguments: list[str]) -> NoReturn:
    options = argparse.ArgumentParser(allow_abbrev=False)
    options.add_argument("run_file", type=Path)
    options.add_argument("--program", choices=sorted(PROGRAMS))
    options.add_argument("--parser", choices=sorted(PARSERS), default="text")
    options.add_argument("command", nargs="*")
    given = options.parse_args(arguments)
    reporter = Reporter(given.run_file.parent)
    program = PROGRAMS[given.program] if given.program else own_command(given.command)
    try:
        run = read_run(given.run_file, os.environ)
        parser = PARSERS[program.parser if given.program else given.parser](run.backend)
        code = Runner(run, program, parser, reporter).hold()
    except AutocoderError as error:
        reporter.report(Finished(Outcome.FAILED, error.message))
        code = 1
    if code < 0:
        # Ended by a signal: end by the same one, so that whoever waits sees the truth.
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
