"""Linux: /proc and sock_diag, read directly, 5 to 50 times faster than psutil.

Nothing is remembered between two questions but how an answer was read, for when the
kernel says the same again to the byte, and which process owns a socket, which is
checked again before it is repeated.
"""

import contextlib
import errno
import functools
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from autocoder.core.probe.kernel import (
    ANOTHER_USER,
    BindProbe,
    HostIdentity,
    ListeningSocket,
    Liveness,
    Process,
    one_line,
)


class _Socket(NamedTuple):
    port: int
    address: str
    uid: int
    inode: int


class _Owner(NamedTuple):
    pid: int
    link: str
    """The descriptor in /proc that pointed to the socket; read again, it proves the owner."""


# Of include/net/tcp_states.h and linux/{netlink,sock_diag,inet_diag}.h.
_TCP_LISTEN: Final = 10
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLM_F_DUMP_INTR: Final = 0x10
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_MESSAGE: Final = struct.Struct("=IHHII")
_ANSWER: Final = struct.Struct("=BBBB 2s2s 16s16s I8s IIIII")


class LinuxKernel(BindProbe):
    """Safe to ask from several threads."""

    def __init__(self) -> None:
        self._owners: dict[int, _Owner | None] = {}
        self._lines: dict[bytes, Process] = {}
        """What each line of the last process table was read as: most processes sleep."""
        self._lock = threading.Lock()

    @functools.cached_property
    def identity(self) -> HostIdentity:
        machine = next(
            (
                text
                for path in ("/etc/machine-id", "/var/lib/dbus/machine-id")
                if (text := _read(path).strip().decode("ascii", "replace"))
            ),
            socket.gethostname(),
        )
        boot = _read("/proc/sys/kernel/random/boot_id").strip().decode("ascii", "replace")
        return HostIdentity(f"{machine}:{_namespace('net')}", f"{boot}:{_namespace('pid')}")

    def is_lingering(self, port: int) -> bool:
        held = [entry for entry in self._sockets(~(1 << _TCP_LISTEN)) if entry.port == port]
        return (
            bool(held)
            and not any(entry.inode for entry in held)
            and self.binds(port, "", reuse=True)
        )

    def processes(self) -> Mapping[int, Process]:
        before, lines = self._lines, {}
        for pid in _pids():
            line = _line(pid)
            # Faults and processor time stand in it too: whoever has run has another one.
            if process := before.get(line) or _parse_stat(line):
                lines[line] = process
        self._lines = lines
        return {process.pid: process for process in lines.values()}

    def listening_sockets(self) -> frozenset[tuple[int, int]]:
        return frozenset((entry.port, entry.inode) for entry in self._sockets(1 << _TCP_LISTEN))

    def listeners(self) -> Mapping[int, tuple[ListeningSocket, ...]]:
        entries = list(self._sockets(1 << _TCP_LISTEN))
        with self._lock:
            owners = self._owners = self._with_owners({entry.inode: entry.uid for entry in entries})
        found: dict[int, tuple[ListeningSocket, ...]] = {}
        for port, address, uid, inode in entries:
            owner = owners.get(inode)
            pid = owner.pid if owner else None
            command = (one_line(self.command_line(pid)) if pid else "") or ANOTHER_USER
            listening = ListeningSocket(port, address, inode, uid, pid, command)
            found[port] = (*found.get(port, ()), listening)
        return found

    def start_ticks(self, pid: int) -> int | None:
        process = _stat(pid)
        return process.start if process else None

    def liveness(self, pid: int, start: int | None, boot_id: str) -> Liveness:
        boot, _, namespace = boot_id.partition(":")
        here, _, our_namespace = self.identity.boot_id.partition(":")
        if boot_id and boot != here:
            return Liveness.DEAD
        if boot_id and namespace != our_namespace:
            return Liveness.UNKNOWN
        process = _stat(pid)
        if process is None:
            return _liveness_by_signal(pid)
        if process.state in "ZX" or (start is not None and process.start != start):
            return Liveness.DEAD
        return Liveness.UNKNOWN if start is None else Liveness.ALIVE

    def command_line(self, pid: int) -> tuple[str, ...]:
        raw = _read(f"/proc/{pid}/cmdline").rstrip(b"\0")
        return tuple(raw.decode("utf-8", "replace").split("\0")) if raw else ()

    def environment(self, pid: int) -> Mapping[str, str]:
        entries = _read(f"/proc/{pid}/environ").decode("utf-8", "replace").split("\0")
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)

    def _with_owners(self, uids: Mapping[int, int]) -> dict[int, _Owner | None]:
        """An owner for each inode; all of /proc is read only when one of them is new or moved."""
        known: dict[int, _Owner | None] = {}
        wanted: set[int] = set()
        for inode, uid in uids.items():
            owner = self._owners.get(inode)
            if owner is not None and _link(owner.link) == f"socket:[{inode}]":
                known[inode] = owner
            elif owner is not None or inode not in self._owners:
                known[inode] = None
                if os.geteuid() in (0, uid):
                    wanted.add(inode)
            else:
                known[inode] = None
        if wanted:
            known |= _owners_of(wanted)
        return known

    def _sockets(self, states: int) -> Iterator[_Socket]:
        try:
            yield from [entry for family in _FAMILIES for entry in dump(family, states)]
        except OSError:
            for family in _FAMILIES:
                yield from read_table(family, states)


_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


def dump(family: socket.AddressFamily, states: int) -> tuple[_Socket, ...]:
    """TCP sockets by netlink.

    Raises:
        OSError: the kernel does not offer it here, or never finished undisturbed.
    """
    request = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 0, 0, states & 0xFFF)
    header = _MESSAGE.pack(
        _MESSAGE.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0
    )
    for _ in range(3):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(2)
            netlink.send(header + request)
            answers, undisturbed = _receive(netlink)
        if undisturbed:
            return _read_answers(answers, family)
    raise OSError(errno.EINTR, "the dump was interrupted three times")


def _receive(netlink: socket.socket) -> tuple[tuple[bytes, ...], bool]:
    """What each message of a dump says, and whether nothing changed while it was taken."""
    answers: list[bytes] = []
    undisturbed = True
    while True:
        data = netlink.recv(1 << 18)
        offset = 0
        while offset < len(data):
            length, kind, flags, _, _ = _MESSAGE.unpack_from(data, offset)
            undisturbed = undisturbed and not flags & _NLM_F_DUMP_INTR
            body = offset + _MESSAGE.size
            if kind == _NLMSG_DONE:
                return tuple(answers), undisturbed
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", data, body)[0]
                raise OSError(code, os.strerror(code))
            answers.append(data[body : body + _ANSWER.size])
            offset += (length + 3) & ~3


@functools.lru_cache(maxsize=4)
def _read_answers(answers: tuple[bytes, ...], family: socket.AddressFamily) -> tuple[_Socket, ...]:
    """The sockets of a dump; one that says the same as the last is not read again."""
    size = 4 if family == socket.AF_INET else 16
    fields = map(_ANSWER.unpack, answers)
    return tuple(
        _Socket(
            port=int.from_bytes(answer[4], "big"),
            address=socket.inet_ntop(family, answer[6][:size]),
            uid=answer[13],
            inode=answer[14],
        )
        for answer in fields
    )


def read_table(family: socket.AddressFamily, states: int) -> Iterable[_Socket]:
    """TCP sockets as /proc/net/tcp and tcp6 list them: slower, but offered everywhere.

    The kernel writes the list in pieces: of what changes meanwhile it may leave one out, or
    tell one twice, which is taken for one here.
    """
    return dict.fromkeys(_table(family, states))


def _table(family: socket.AddressFamily, states: int) -> Iterator[_Socket]:
    path = "/proc/net/tcp" if family == socket.AF_INET else "/proc/net/tcp6"
    for line in _read(path).decode("ascii").splitlines()[1:]:
        fields = line.split()
        if not 1 << int(fields[3], 16) & states:
            continue
        address, port = fields[1].split(":")
        words = struct.pack(f"={len(address) // 8}I", *_words(address))
        yield _Socket(
            int(port, 16), socket.inet_ntop(family, words), int(fields[7]), int(fields[9])
        )


def _words(text: str) -> list[int]:
    return [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]


def _owners_of(inodes: set[int]) -> dict[int, _Owner | None]:
    """Who holds these sockets, youngest processes first: a new socket mostly has a new owner."""
    found: dict[int, _Owner | None] = {}
    missing = {f"socket:[{inode}]": inode for inode in inodes}
    for pid in sorted(_pids(), reverse=True):
        if not missing:
            break
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                if (inode := missing.pop(_link(entry.path), None)) is not None:
                    found[inode] = _Owner(pid, entry.path)
    return found


def _stat(pid: int) -> Process | None:
    return _parse_stat(_line(pid))


def _line(pid: int) -> bytes:
    """Of /proc/PID/stat; empty when the process has gone or is hidden."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 4096)  # the kernel writes it in one piece
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _parse_stat(raw: bytes) -> Process | None:
    """A line of /proc/PID/stat; the name stands in brackets and may hold brackets itself."""
    opening, closing = raw.find(b"("), raw.rfind(b")")
    if closing < 0:
        return None
    rest = raw[closing + 2 :].split(None, 22)
    return Process(
        pid=int(raw[:opening]),
        ppid=int(rest[1]),
        session=int(rest[3]),
        start=int(rest[19]),
        cpu_ticks=int(rest[11]) + int(rest[12]),
        rss_bytes=int(rest[21]) * _PAGE_BYTES,
        name=raw[opening + 1 : closing].decode("utf-8", "replace"),
        state=chr(rest[0][0]),
    )


_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")


def _liveness_by_signal(pid: int) -> Liveness:
    """A process that /proc does not show may be hidden by its mount options; signal 0 tells."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return Liveness.DEAD
    except (PermissionError, OverflowError):
        return Liveness.UNKNOWN
    return Liveness.UNKNOWN


def _read(path: str) -> bytes:
    """A whole file of /proc; empty when the process has gone or hides it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        chunks = []
        while chunk := os.read(descriptor, 1 << 16):
            chunks.append(chunk)
        return b"".join(chunks)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _pids() -> list[int]:
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdecimal()]


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115  # a Path costs more than the call
    except OSError:
        return ""


def _namespace(kind: str) -> str:
    return _link(f"/proc/self/ns/{kind}").strip("netpid:[]") or "?"
