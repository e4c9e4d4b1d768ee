"""What the probe says on hosts that are set up otherwise: each is a namespace."""

import json
import textwrap
from typing import Any

import pytest

from support.namespaces import in_namespaces

ASK = textwrap.dedent("""
    import json, os, sys
    from autocoder.core.probe import LinuxKernel
    from autocoder.core.probe.portable import PortableKernel
    from support.sockets import listen, bind
    kernel = {"linux": LinuxKernel, "portable": PortableKernel}[sys.argv[1]]()
""")
KERNELS = pytest.mark.parametrize("kernel", ["linux", "portable"])


def ask(flags: str, setup: str, code: str, kernel: str) -> Any:
    return json.loads(in_namespaces(flags, setup, ASK + textwrap.dedent(code), kernel))


@KERNELS
def test_a_port_that_is_taken_on_the_lan_address_alone_is_not_free(kernel: str) -> None:
    answer = ask(
        "-rn",
        "ip link set lo up && ip address add 198.51.100.7/32 dev lo",
        """
        before = kernel.is_free(5000)
        with listen(5000, "198.51.100.7"):
            (found,) = kernel.listeners()[5000]
            listening = [kernel.is_free(5000), kernel.is_free(5000, "127.0.0.1"), found.address]
        with bind(5000, "198.51.100.7"):
            bound = kernel.is_free(5000)
        print(json.dumps([before, listening, bound, found.pid == os.getpid()]))
        """,
        kernel,
    )
    assert answer == [True, [False, True, "198.51.100.7"], False, True]


@KERNELS
def test_without_ipv6_the_other_addresses_decide(kernel: str) -> None:
    answer = ask(
        "-rn",
        "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6",
        """
        before = kernel.is_free(5000)
        with listen(5000, "127.0.0.2"):
            taken = kernel.is_free(5000)
        held = kernel.hold_any()
        print(json.dumps([before, taken, kernel.is_free(held.port)]))
        """,
        kernel,
    )
    assert answer == [True, False, False]


def test_two_network_namespaces_are_two_hosts() -> None:
    code = "print(json.dumps([kernel.identity.host_id, kernel.identity.boot_id]))"
    (one, here), (other, there) = (ask("-rn", "true", code, "linux") for _ in range(2))
    assert one != other
    assert here == there


HIDDEN = """
    parent = os.getpid()
    start, boot = kernel.start_ticks(parent), kernel.identity.boot_id
    listener = listen(5000)
    if os.fork() == 0:
        listener.close()
        os.setgid(65534)
        os.setuid(65534)
        (found,) = kernel.listeners()[5000]
        print(json.dumps({
            "owner": [found.pid, found.command, found.uid],
            "start": kernel.start_ticks(parent),
            "arguments": kernel.command_line(parent),
            "liveness": kernel.liveness(parent, start, boot),
            "free": kernel.is_free(5000),
        }), flush=True)
        os._exit(0)
    os.wait()
"""


def test_what_another_user_hides_is_another_users_and_not_dead() -> None:
    answer = ask(
        "-mn",
        "ip link set lo up && mount -t proc -o hidepid=2 proc /proc",
        HIDDEN,
        "linux",
    )
    assert answer == {
        "owner": [None, "another user", 0],
        "start": None,
        "arguments": [],
        "liveness": "unknown",
        "free": False,
    }
