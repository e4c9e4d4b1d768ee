"""The front end without a screen: the same loop, told in lines.

Progress goes to stderr and the report to stdout, so that a script can keep one
without the other.
"""

import dataclasses
import json
import shutil
import signal
import sys
import time
from types import FrameType
from typing import Any, TextIO

from autocoder.core.commands import StopAll
from autocoder.core.engine import ReportingEngine
from autocoder.core.lifecycle import plural, spoken_duration
from autocoder.core.logs import sanitise
from autocoder.core.models import Notice, RunReport, Severity, Snapshot

EXIT_INTERRUPTED = 130
BAR_WIDTH = 30
MOST_APPS = 20


class Progress:
    """Tells snapshots as lines, with a bar below them where there is a terminal."""

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._bar = not as_json and out.isatty()
        self._last_notice = 0

    def show(self, snapshot: Snapshot) -> None:
        for notice in snapshot.notices:
            if notice.id > self._last_notice:
                self._last_notice = notice.id
                self._say(notice)
        features = snapshot.features
        active = sum(agent.live for agent in snapshot.agents)
        if self._as_json:
            counts = dataclasses.asdict(features)
            self._write(json.dumps({"event": "progress", "active": active, **counts}) + "\n")
        elif self._bar:
            filled = BAR_WIDTH * features.done // max(features.total, 1)
            text = (
                f"{'█' * filled}{'░' * (BAR_WIDTH - filled)} "
                f"{features.done}/{features.total} done, {active} active"
            )
            self._write("\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1])

    def end(self) -> None:
        if self._bar:
            self._write("\r\x1b[K")

    def _say(self, notice: Notice) -> None:
        if self._as_json:
            self._write(json.dumps({"event": "notice", **notice_json(notice)}) + "\n")
            return
        clock = time.strftime("%H:%M:%S", time.localtime(notice.at))
        mark = {Severity.INFO: " ", Severity.WARNING: "!", Severity.ERROR: "✗"}[notice.severity]
        clear = "\r\x1b[K" if self._bar else ""
        self._write(f"{clear}{clock} {mark} {sanitise(notice_text(notice))}\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def run_headless(engine: ReportingEngine, *, as_json: bool) -> int:
    """Run the backlog to its end and print the report; the exit code.

    Ctrl-C once stops every agent and then reports; twice, or SIGTERM, leaves them
    running. The next orchestrator of the project adopts those.
    """
    interrupted = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted += 1
        if interrupted == 1:
            engine.submit(StopAll())
        else:
            engine.stop()

    def leave(_number: int, _frame: FrameType | None) -> None:
        engine.stop()

    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: leave, signal.SIGHUP: leave}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    progress = Progress(sys.stderr, as_json=as_json)
    try:
        report = engine.run_to_report(progress.show)
    finally:
        progress.end()
        for number, handler in previous.items():
            signal.signal(number, handler)
    text = json.dumps(report_json(report), indent=2) if as_json else report_text(report)
    sys.stdout.write(text + "\n")
    if interrupted:
        return EXIT_INTERRUPTED
    return 0 if report.features_done == report.features_total else 1


def _tells_of_an_app(notice: Notice) -> bool:
    return notice.severity is Severity.INFO and "; its app was at " in notice.text


def notice_text(notice: Notice) -> str:
    return f"{notice.subject}: {notice.text}" if notice.subject else notice.text


def notice_json(notice: Notice) -> dict[str, Any]:
    return {
        "at": notice.at,
        "severity": str(notice.severity),
        "subject": notice.subject,
        "text": notice.text,
    }


def report_json(report: RunReport) -> dict[str, Any]:
    """The stable shape scripts rely on."""
    return {
        "features": {
            "total": report.features_total,
            "done": report.features_done,
            "blocked": report.features_blocked,
            "pending": report.features_pending,
        },
        "agents": {
            "spawned": report.spawned,
            "adopted": report.adopted,
            "completed": report.completed,
            "failed": report.failed,
            "crashed": report.crashed,
            "killed": report.killed,
            "live": report.live,
        },
        "leases": {"granted": report.leases_granted, "released": report.leases_released},
        "eaddrinuse": report.eaddrinuse,
        "notices": [notice_json(notice) for notice in report.notices],
        "seconds": round(report.seconds, 1),
    }


def report_text(report: RunReport) -> str:
    left = []
    if report.features_blocked:
        left.append(f"{report.features_blocked} blocked")
    if report.features_pending:
        left.append(f"{report.features_pending} pending")
    agents = [f"{report.spawned} spawned"]
    if report.adopted:
        agents.append(f"{report.adopted} adopted")
    ends = ", ".join(
        f"{getattr(report, end)} {end}" for end in ("completed", "failed", "crashed", "killed")
    )
    lines = [
        f"{report.features_done} of {plural(report.features_total, 'feature')} done"
        + "".join(f", {part}" for part in left)
        + f" in {spoken_duration(report.seconds)}",
        f"  agents      {', '.join(agents)}: {ends}"
        + (f", {report.live} still running" if report.live else ""),
        f"  leases      {report.leases_granted} granted, {report.leases_released} released",
        f"  EADDRINUSE  {report.eaddrinuse} on agents' own ports",
    ]
    apps = [notice for notice in report.notices if _tells_of_an_app(notice)]
    if apps:
        lines.append("  how to look at what was made:")
        lines += [f"    {sanitise(notice_text(notice))}" for notice in apps[-MOST_APPS:]]
    failed = [notice for notice in report.notices if notice.severity is not Severity.INFO]
    if failed:
        lines.append("  what went wrong on the way:")
        lines += [f"    {sanitise(notice_text(notice))}" for notice in failed]
    return "\n".join(lines)
