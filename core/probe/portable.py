"""Elsewhere than Linux: psutil, slower and told less, by the same rules."""

import contextlib
import functools
import socket
import uuid
from collections.abc import Iterator, Mapping

import psutil

from autocoder.core.probe.kernel import (
    ANOTHER_USER,
    TICKS_PER_SECOND,
    BindProbe,
    HostIdentity,
    ListeningSocket,
    Liveness,
    Process,
    one_line,
)

_STATES = {psutil.STATUS_RUNNING: "R", psutil.STATUS_STOPPED: "T", psutil.STATUS_ZOMBIE: "Z"}


class PortableKernel(BindProbe):
    @functools.cached_property
    def identity(self) -> HostIdentity:
        # Booted to the minute: the computed time wobbles by a second between two processes.
        boot = round(psutil.boot_time() / 60)
        return HostIdentity(f"{socket.gethostname()}-{uuid.getnode():012x}", str(boot))

    def is_lingering(self, port: int) -> bool:
        return port not in self.listeners() and self.binds(port, "", reuse=True)

    def processes(self) -> Mapping[int, Process]:
        found: dict[int, Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                found[process.pid] = Process(
                    pid=process.pid,
                    ppid=process.ppid(),
                    session=0,
                    start=_start(process),
                    cpu_ticks=round((times.user + times.system) * TICKS_PER_SECOND),
                    rss_bytes=process.memory_info().rss,
                    name=process.name(),
                    state=_STATES.get(process.status(), "S"),
                )
        return found

    def listening_sockets(self) -> frozenset[tuple[int, int]]:
        return frozenset((port, pid or 0) for pid, _, port in _listening())

    def listeners(self) -> Mapping[int, tuple[ListeningSocket, ...]]:
        found: dict[int, tuple[ListeningSocket, ...]] = {}
        for pid, address, port in _listening():
            command = one_line(self.command_line(pid)) if pid else ""
            entry = ListeningSocket(port, address, 0, -1, pid, command or ANOTHER_USER)
            found[port] = (*found.get(port, ()), entry)
        return found

    def start_ticks(self, pid: int) -> int | None:
        try:
            return _start(psutil.Process(pid))
        except psutil.Error:
            return None

    def liveness(self, pid: int, start: int | None, boot_id: str) -> Liveness:
        if boot_id and boot_id != self.identity.boot_id:
            return Liveness.DEAD
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE or start not in (None, _start(process)):
                return Liveness.DEAD
        except psutil.NoSuchProcess:
            return Liveness.DEAD
        except psutil.AccessDenied:
            return Liveness.UNKNOWN
        return Liveness.UNKNOWN if start is None else Liveness.ALIVE

    def command_line(self, pid: int) -> tuple[str, ...]:
        try:
            return tuple(psutil.Process(pid).cmdline())
        except psutil.Error:
            return ()

    def environment(self, pid: int) -> Mapping[str, str]:
        try:
            return psutil.Process(pid).environ()
        except (psutil.Error, OSError):
            return {}


def _start(process: psutil.Process) -> int:
    return round(process.create_time() * TICKS_PER_SECOND)


def _listening() -> Iterator[tuple[int | None, str, int]]:
    """All listeners where the platform tells, else those of the processes it lets us read."""
    try:
        for entry in psutil.net_connections("tcp"):
            if entry.status == psutil.CONN_LISTEN and entry.laddr:
                yield entry.pid, entry.laddr.ip, entry.laddr.port
    except psutil.AccessDenied:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                for own in process.net_connections("tcp"):
                    if own.status == psutil.CONN_LISTEN and own.laddr:
                        yield process.pid, own.laddr.ip, own.laddr.port
