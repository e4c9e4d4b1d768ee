"""The question every platform answers alike, and the words of the answers."""

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from autocoder.core.errors import RefusedError

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
ANOTHER_USER: Final = "another user"
_COMMAND_LENGTH: Final = 200


class Liveness(StrEnum):
    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """The kernel does not tell; nothing is killed, freed or deleted on it."""


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    ppid: int
    session: int
    """POSIX session id: the pid of the process that began it."""
    start: int
    """Clock ticks since boot; with `pid` and the boot it names a process for ever."""
    cpu_ticks: int
    """User and system time so far, in clock ticks, without its children's."""
    rss_bytes: int
    name: str
    state: str
    """One letter of proc(5): R running, S sleeping, T stopped, Z ended but not reaped."""


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    port: int
    address: str
    inode: int
    uid: int
    pid: int | None
    """None when the owner is hidden from us, as another user's is."""
    command: str
    """One printable line; "another user" when the owner is hidden."""


@dataclass(frozen=True, slots=True)
class HostIdentity:
    host_id: str
    """Machine id and network namespace: what shares one set of ports."""
    boot_id: str
    """This boot and PID namespace: within what a pid with its start means one process."""


class HeldPort(Protocol):
    """A port that the kernel picked and that stays bound until it is closed.

    A server that sets SO_REUSEADDR can bind it all the same, as with a worker's
    placeholders.
    """

    @property
    def port(self) -> int: ...

    def close(self) -> None: ...


class Kernel(Protocol):
    """What the ledger and the orchestrator ask; a simulated one serves as well."""

    @property
    def identity(self) -> HostIdentity: ...

    def is_free(self, port: int, address: str = "") -> bool:
        """Whether nothing at all holds the port: listening, merely bound, or in TIME_WAIT.

        Every address of the host is tried, or `address` alone; an address that the
        host does not have is not free.

        Raises:
            RefusedError: this process may open no further file.
        """

    def is_lingering(self, port: int) -> bool:
        """Whether only closed connections, owned by no process, still hold the port."""

    def hold_any(self) -> HeldPort:
        """A port that was free on every address, of the kernel's own choice.

        Raises:
            RefusedError: there is none, or this process may open no further file.
        """

    def processes(self) -> Mapping[int, Process]:
        """Every process that is shown to us, by pid.

        Where it is the same object as in the call before, the process has begun no other
        program since: what is known of its arguments still holds.
        """

    def listening_sockets(self) -> frozenset[tuple[int, int]]:
        """Port and inode of every listening TCP socket, or port and pid: cheaper than `listeners`.

        It differs from an earlier answer when a socket has begun or ceased to listen since.
        """

    def listeners(self) -> Mapping[int, tuple[ListeningSocket, ...]]:
        """Every listening TCP socket of the host, by port."""

    def start_ticks(self, pid: int) -> int | None:
        """Start of a process in clock ticks since boot; None when there is none or it is hidden."""

    def liveness(self, pid: int, start: int | None, boot_id: str) -> Liveness:
        """Whether the process that had this pid, start and boot lives; an unreaped one is dead."""

    def command_line(self, pid: int) -> tuple[str, ...]:
        """Arguments as the process shows them; empty when there is none or it is hidden."""

    def environment(self, pid: int) -> Mapping[str, str]:
        """What the process was started with; empty when there is none or it is hidden."""


@dataclass(frozen=True, slots=True)
class HostView:
    """What the kernel said of the whole host at one moment."""

    processes: Mapping[int, Process]
    listeners: Mapping[int, tuple[ListeningSocket, ...]]

    @classmethod
    def of(cls, kernel: Kernel) -> "HostView":
        return cls(kernel.processes(), kernel.listeners())


def descendants(processes: Mapping[int, Process], root_pid: int) -> set[int]:
    """Pids of children, grandchildren and so on, `root_pid` itself left out."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    waiting = [root_pid]
    while waiting:
        fresh = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(fresh)
        waiting += fresh
    found.discard(root_pid)
    return found


def one_line(arguments: Iterable[str]) -> str:
    """A command as one printable, clipped line: what a process calls itself is not trusted."""
    text = " ".join(arguments)[: 2 * _COMMAND_LENGTH]
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text).strip()
    return line if len(line) <= _COMMAND_LENGTH else line[: _COMMAND_LENGTH - 1] + "…"


@dataclass(frozen=True, slots=True)
class _BoundPort:
    port: int
    socket: socket.socket

    def close(self) -> None:
        self.socket.close()


class BindProbe:
    """Asks about a port by binding it, which is the only answer that covers every holder."""

    def is_free(self, port: int, address: str = "") -> bool:
        return self.binds(port, address, reuse=False)

    def binds(self, port: int, address: str, *, reuse: bool) -> bool:
        opened: list[socket.socket] = []
        try:
            for family, host in _addresses(address):
                try:
                    opened.append(_bound(family, host, port, reuse=reuse))
                except OSError as error:
                    if host == "::" and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        continue
                    _refuse_shortage(error)
                    return False
            return True
        finally:
            for bound in opened:
                bound.close()

    def hold_any(self) -> HeldPort:
        for _ in range(100):
            try:
                held = _bound(socket.AF_INET, "0.0.0.0", 0, reuse=False)  # noqa: S104
            except OSError as error:
                _refuse_shortage(error)
                break
            port = held.getsockname()[1]
            if self.binds(port, "::", reuse=False):
                # Set only now: asked for before, the kernel picks a port that others share.
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                return _BoundPort(port, held)
            held.close()
        raise RefusedError("the kernel has no free port to give", "Close programs.")


def _bound(family: socket.AddressFamily, host: str, port: int, *, reuse: bool) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened


def _refuse_shortage(error: OSError) -> None:
    """Too few files or memory says nothing about a port."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
        raise RefusedError(
            f"ports cannot be probed: {error.strerror}",
            "Raise the limit of open files (`ulimit -n`) or close programs.",
        ) from error


def _addresses(address: str) -> tuple[tuple[socket.AddressFamily, str], ...]:
    if not address:
        return (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")  # noqa: S104
    return ((socket.AF_INET6 if ":" in address else socket.AF_INET, address),)
