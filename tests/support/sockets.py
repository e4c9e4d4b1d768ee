"""Ports that no other test of this host uses, and the ways a port can be taken.

A block of ports belongs to the process that has bound the abstract unix address
of its number, so that test runs side by side never meet.
"""

import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

BLOCK = 100
_FIRST = 11_000
_turn = itertools.count(os.getpid())


@contextlib.contextmanager
def reserved_ports(count: int = BLOCK) -> Iterator[range]:
    """`count` consecutive ports, all free now, below the kernel's ephemeral ones."""
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    blocks = -(-count // BLOCK)
    slots = (ephemeral - _FIRST) // BLOCK - blocks
    for _ in range(slots):
        first = next(_turn) % slots
        with contextlib.ExitStack() as guards:
            if not all(_claimed(slot, guards) for slot in range(first, first + blocks)):
                continue
            ports = range(_FIRST + first * BLOCK, _FIRST + first * BLOCK + count)
            if all(map(_is_free, ports)):
                yield ports
                return
    raise AssertionError(f"no {count} consecutive ports are free for a test")


def _claimed(slot: int, guards: contextlib.ExitStack) -> bool:
    guard = guards.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    try:
        guard.bind(f"\0autocoder-test-ports-{slot}")
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        try:
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            four.bind(("", port))
            six.bind(("::", port))
        except OSError as error:
            return error.errno == 99  # EADDRNOTAVAIL: IPv6 is switched off
    return True


def lan_address() -> str | None:
    """An IPv4 address of this host beside loopback; connecting UDP sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address


def listen(port: int, address: str = "127.0.0.1", *, reuse: bool = True) -> socket.socket:
    """A listening socket as most servers make it."""
    listener = bind(port, address, reuse=reuse)
    listener.listen()
    return listener


def bind(
    port: int, address: str = "", *, reuse: bool = False, v6_only: bool = False
) -> socket.socket:
    """A socket that is bound and does not listen."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6_only))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound


def leave_time_wait(port: int) -> None:
    """Nothing listens afterwards, but a closed connection still holds the port."""
    with listen(port) as listener, socket.create_connection(("127.0.0.1", port)) as client:
        served, _ = listener.accept()
        served.close()
        client.recv(1)


def _dual(port: int) -> socket.socket:
    taken = bind(port, "::", reuse=True, v6_only=False)
    taken.listen()
    return taken


def _v6_only(port: int) -> socket.socket:
    taken = bind(port, "::", reuse=True, v6_only=True)
    taken.listen()
    return taken


def _lan(port: int) -> socket.socket:
    address = lan_address()
    assert address is not None
    return listen(port, address)


WAYS_TO_TAKE: dict[str, Callable[[int], socket.socket | None]] = {
    "127.0.0.1": lambda port: listen(port, "127.0.0.1"),
    "127.0.0.2": lambda port: listen(port, "127.0.0.2"),
    "0.0.0.0": lambda port: listen(port, "0.0.0.0"),
    "::1": lambda port: listen(port, "::1"),
    ":: v6 only": _v6_only,
    ":: dual": _dual,
    "LAN address": _lan,
    "bound, not listening": bind,
    "TIME_WAIT": leave_time_wait,
}
"""Each takes the port until the socket it returns is closed."""
