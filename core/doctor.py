"""Whether this host and project are fit to run agents, one finding per question.

Every check stands alone: what one of them cannot find out never keeps the others
from being asked. Nothing is changed, made or repaired.
"""

import ctypes
import locale
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from autocoder.core.backends.choice import SCRIPTED, availability, check_backend, settings_for
from autocoder.core.database import network_file_system
from autocoder.core.errors import AutocoderError, UsageError
from autocoder.core.mcp_servers import PLAYWRIGHT_PACKAGE, browser_command, find_chromium
from autocoder.core.models import PortRange
from autocoder.core.ports.rules import PortRules, host_rules, overlaps
from autocoder.core.probe import Kernel, local_kernel
from autocoder.core.project_lock import read_holder
from autocoder.core.settings import BACKENDS, Settings, ledger_path
from autocoder.core.worktrees import open_repository

OLDEST_GIT = (2, 38)
FILES_PER_AGENT = 8
MIB = 1 << 20


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    status: Status
    detail: str
    remedy: str = ""
    """What to do about it; empty where all is well."""

    def as_dict(self) -> dict[str, str]:
        return {
            "check": self.check,
            "status": self.status.value,
            "detail": self.detail,
            "remedy": self.remedy,
        }


def examine(project_dir: Path, settings: Settings) -> tuple[Finding, ...]:
    """All findings, in the order a person would mend them in."""
    kernel, rules = local_kernel(), host_rules(settings.ui.port)
    return tuple(
        finding
        for group in (
            _programs(),
            _project(project_dir, settings),
            _terminal(os.environ),
            _ranges(settings, rules),
            _listeners(settings, rules, kernel),
            _state(settings, project_dir),
            _limits(settings),
            _fence(settings),
            _backends(settings),
            _browser(settings),
        )
        for finding in group
    )


def _programs() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", Status.OK, f"{version}, SQLite {sqlite3.sqlite_version}")
    try:
        said = subprocess.run(
            ["git", "version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
        numbers = tuple(int(part) for part in said.split()[2].split(".")[:2])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        yield Finding(
            "git", Status.FAIL, f"git does not run: {error}", "Install git 2.38 or newer."
        )
        return
    if numbers < OLDEST_GIT:
        yield Finding("git", Status.FAIL, f"{said.strip()} is too old", "Install 2.38 or newer.")
    else:
        yield Finding("git", Status.OK, said.strip())


def _project(project_dir: Path, settings: Settings) -> Iterator[Finding]:
    try:
        repository = open_repository(project_dir, settings.base)
    except AutocoderError as error:
        yield Finding("project", Status.FAIL, error.message, error.hint)
        return
    yield Finding("project", Status.OK, f"{project_dir}, base {repository.base}")
    pid = read_holder(project_dir).get("pid")
    if isinstance(pid, int) and psutil.pid_exists(pid):
        yield Finding("orchestrator", Status.OK, f"runs as pid {pid}")
    else:
        yield Finding("orchestrator", Status.OK, "none runs; `autocoder-tui` starts one")


def _terminal(environ: Mapping[str, str]) -> Iterator[Finding]:
    if not sys.stderr.isatty():
        yield Finding(
            "terminal", Status.WARN, "this is none", "Without one use `autocoder parallel`."
        )
        return
    size = os.get_terminal_size(sys.stderr.fileno())
    term = environ.get("TERM", "")
    encoding = locale.getpreferredencoding(False)
    said = f"{term or 'no TERM'}, {size.columns}x{size.lines}, {encoding}"
    if term in ("", "dumb"):
        yield Finding("terminal", Status.FAIL, said, "Set TERM, for example to xterm-256color.")
    elif encoding.lower().replace("-", "") != "utf8":
        yield Finding("terminal", Status.WARN, said, "Use a UTF-8 locale: LANG=C.UTF-8.")
    elif size.columns < 80 or size.lines < 24:
        yield Finding("terminal", Status.WARN, said, "Make it 80x24 or larger.")
    else:
        yield Finding("terminal", Status.OK, said)


def _ranges(settings: Settings, rules: PortRules) -> Iterator[Finding]:
    for role, spans in _pools(settings):
        usable, total = rules.usable(spans), sum(map(len, spans))
        named = ", ".join(map(str, spans))
        check, detail = f"pool {role}", f"{named}: {usable} of {total} ports usable"
        collisions = [span for span in spans if overlaps(span, rules.ephemeral)]
        if collisions:
            yield Finding(
                check,
                Status.FAIL,
                f"{collisions[0]} lies in {rules.ephemeral}, which the kernel hands out itself",
                f"Move the range below {rules.ephemeral.start} (ports.{role}).",
            )
        elif usable < settings.parallel:
            yield Finding(
                check,
                Status.WARN,
                f"{detail}, fewer than parallel = {settings.parallel}",
                f"Widen ports.{role}, or let it grow: ports.auto_expand = true.",
            )
        else:
            yield Finding(check, Status.OK, detail)


def _listeners(settings: Settings, rules: PortRules, kernel: Kernel) -> Iterator[Finding]:
    """Who already listens in the pools, agents of ours among them."""
    spans = [span for _, spans in _pools(settings) for span in spans]
    taken = [
        (port, sockets[0])
        for port, sockets in sorted(kernel.listeners().items())
        if any(port in span for span in spans) and port not in rules.never
    ]
    if not taken:
        yield Finding("listeners", Status.OK, "nothing listens in the pools")
        return
    named = "; ".join(
        f"{port}: pid {found.pid} {found.command}" if found.pid else f"{port}: another user"
        for port, found in taken[:5]
    )
    more = f"; and {len(taken) - 5} more" if len(taken) > 5 else ""
    yield Finding(
        "listeners",
        Status.WARN,
        f"{len(taken)} pool ports are in use: {named}{more}",
        "Agents of yours are meant to; `autocoder ports check` tells these from others.",
    )


def _state(settings: Settings, project_dir: Path) -> Iterator[Finding]:
    for check, folder in (("state folder", ledger_path(settings).parent), ("disk", project_dir)):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        network = network_file_system(existing)
        free = shutil.disk_usage(existing).free // MIB
        if not os.access(existing, os.W_OK | os.X_OK):
            yield Finding(check, Status.FAIL, f"{existing} is not writable", "Make it writable.")
        elif network:
            yield Finding(
                check,
                Status.WARN,
                f"{folder} is on {network}, whose locks SQLite cannot rely on",
                "Keep it on a local disk: AUTOCODER_LEDGER_URL, AUTOCODER_DATABASE_URL.",
            )
        elif free < settings.limits.min_free_mib:
            yield Finding(
                check,
                Status.FAIL,
                f"{free} MiB free at {existing}, limits.min_free_mib is "
                f"{settings.limits.min_free_mib}",
                "Free some, or lower the limit.",
            )
        else:
            yield Finding(check, Status.OK, f"{folder}, {free} MiB free")


def _limits(settings: Settings) -> Iterator[Finding]:
    needed = 100 + FILES_PER_AGENT * settings.parallel
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        remedy = f"Raise it: ulimit -n {max(1024, needed)}"
        yield Finding("open files", Status.FAIL, f"limit {soft}, {needed} needed", remedy)
    else:
        yield Finding("open files", Status.OK, f"limit {soft}")
    free = psutil.virtual_memory().available // MIB
    status = Status.OK if free >= settings.limits.min_free_mib else Status.FAIL
    remedy = "" if status is Status.OK else "End programs, or lower limits.min_free_mib."
    yield Finding("memory", status, f"{free} MiB available", remedy)


def _fence(settings: Settings) -> Iterator[Finding]:
    if settings.fence == "off":
        yield Finding(
            "fence", Status.WARN, "switched off", 'fence = "neighbours" keeps agents apart.'
        )
        return
    if sys.platform != "linux":
        abi = 0
    else:
        create_ruleset, version_query = 444, 1
        abi = ctypes.CDLL(None).syscall(create_ruleset, None, 0, version_query)
    if abi >= 4:
        yield Finding("fence", Status.OK, f"{settings.fence}, by Landlock ABI {abi}")
    else:
        yield Finding(
            "fence",
            Status.WARN,
            "this kernel has no Landlock rule for TCP ports",
            "Linux 6.7 or newer has; until then rogue binds are detected and named.",
        )


def _backends(settings: Settings) -> Iterator[Finding]:
    for name in dict.fromkeys((*BACKENDS, *settings.backends)):
        chosen = name == settings.backend
        check, mark = f"backend {name}", " (chosen)" if chosen else ""
        state = availability(name, settings)
        if not state.usable:
            status = Status.FAIL if chosen else Status.WARN
            yield Finding(check, status, f"{state.detail}{mark}", state.remedy)
            continue
        try:
            check_backend(settings_for(settings, name))
        except UsageError as error:
            yield Finding(check, Status.FAIL, error.message, error.hint or "Mend the command.")
        else:
            yield Finding(check, Status.OK, f"{state.detail}{mark}")


def _browser(settings: Settings) -> Iterator[Finding]:
    chromium, server = find_chromium(), browser_command()
    if chromium and server:
        yield Finding("browser", Status.OK, f"{chromium}, by {server[0]}")
    elif settings.backend == SCRIPTED or settings.yolo:
        yield Finding("browser", Status.OK, "none, and none is needed")
    else:
        missing = "Chromium" if not chromium else "Playwright's MCP server"
        yield Finding(
            "browser",
            Status.WARN,
            f"agents cannot look at their pages: no {missing}",
            "apt-get install chromium" if not chromium else f"npm install -g {PLAYWRIGHT_PACKAGE}",
        )


def _pools(settings: Settings) -> Iterable[tuple[str, tuple[PortRange, ...]]]:
    return ("api", settings.ports.api), ("web", settings.ports.web)
