import contextlib
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocoder.core.errors import RefusedError
from autocoder.core.probe import (
    Kernel,
    LinuxKernel,
    Liveness,
    Process,
    descendants,
    linux,
    one_line,
)
from autocoder.core.probe.portable import PortableKernel
from support.sockets import WAYS_TO_TAKE, bind, lan_address, leave_time_wait, listen, reserved_ports
from support.waiting import wait_until


@pytest.fixture(params=[LinuxKernel, PortableKernel])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    made: Kernel = request.param()
    return made


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_ports(1) as ports:
        yield ports[0]


@contextlib.contextmanager
def program(code: str) -> Iterator["subprocess.Popen[str]"]:
    """A Python process that has printed its first line and waits for its stdin to close."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code + "\nprint(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    try:
        child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("way", WAYS_TO_TAKE)
def test_a_port_is_not_free_in_whatever_way_it_is_taken(
    way: str, kernel: Kernel, port: int
) -> None:
    if way == "LAN address" and lan_address() is None:
        pytest.skip("this host has no address but loopback")
    assert kernel.is_free(port)
    taken = WAYS_TO_TAKE[way](port)
    assert not kernel.is_free(port)
    if taken is not None:
        taken.close()
        assert kernel.is_free(port)


def test_a_socket_that_shares_its_port_still_takes_it(kernel: Kernel, port: int) -> None:
    with bind(port, reuse=True):
        assert not kernel.is_free(port)


def test_one_address_can_be_asked_about_alone(kernel: Kernel, port: int) -> None:
    with listen(port, "127.0.0.2"):
        assert kernel.is_free(port, "127.0.0.1")
        assert not kernel.is_free(port, "127.0.0.2")
        assert not kernel.is_free(port)


def test_an_address_the_host_does_not_have_is_not_free(kernel: Kernel, port: int) -> None:
    assert not kernel.is_free(port, "203.0.113.7")


def test_a_kernel_without_ipv6_is_judged_by_ipv4_alone(
    kernel: Kernel, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoIpv6(socket.socket):
        """A kernel booted with ipv6.disable=1 answers so; this one cannot be rebooted."""

        def __init__(self, family: int = socket.AF_INET, *rest: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *rest)

    with listen(port) as listener:
        monkeypatch.setattr(socket, "socket", NoIpv6)
        assert not kernel.is_free(port)
        listener.close()
        assert kernel.is_free(port)


def test_no_file_left_to_open_is_an_error_and_not_a_busy_port(kernel: Kernel, port: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(RefusedError, match="open files"):
            kernel.is_free(port)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


def test_only_closed_connections_make_a_port_linger(kernel: Kernel, port: int) -> None:
    assert kernel.is_free(port)
    with listen(port):
        assert not kernel.is_lingering(port)
    with bind(port):
        assert not kernel.is_lingering(port)
    leave_time_wait(port)
    assert kernel.is_lingering(port)


def test_a_connection_that_a_process_still_holds_does_not_linger(port: int) -> None:
    with listen(port) as listener, socket.create_connection(("127.0.0.1", port)):
        served, _ = listener.accept()
        listener.close()
        with served:
            assert not LinuxKernel().is_lingering(port)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"])
def test_a_listener_is_told_with_its_process_and_command(
    address: str, kernel: Kernel, port: int
) -> None:
    with listen(port, address):
        (listening,) = kernel.listeners()[port]
    assert (listening.address, listening.pid) == (address, os.getpid())
    assert one_line(Path("/proc/self/cmdline").read_text().split("\0")[:1]) in listening.command
    assert port not in kernel.listeners()


def test_what_listens_differs_when_a_socket_begins_or_ceases_to(kernel: Kernel, port: int) -> None:
    def here() -> set[tuple[int, int]]:
        return {each for each in kernel.listening_sockets() if each[0] == port}

    assert not here()
    with listen(port):
        first = here()
        assert first
        assert here() == first
    assert not here()


def test_another_socket_on_the_same_port_is_another(port: int) -> None:
    kernel = LinuxKernel()
    told = []
    for _ in range(2):
        with listen(port):
            told.append({each for each in kernel.listening_sockets() if each[0] == port})
    assert told[0] != told[1]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_netlink_and_the_proc_table_tell_the_same(port: int, family: socket.AddressFamily) -> None:
    with listen(port, "127.0.0.2"), listen(port, "::1"):
        by_netlink = [e for e in linux.dump(family, 1 << 10) if e.port == port]
        assert len(by_netlink) == 1
        # Not at once, where other programs open and close sockets while the table is written.
        wait_until(
            lambda: [e for e in linux.read_table(family, 1 << 10) if e.port == port] == by_netlink
        )


def test_a_socket_that_moves_to_another_process_is_told_with_its_new_owner(port: int) -> None:
    kernel = LinuxKernel()
    with listen(port) as listener:
        listener.set_inheritable(True)
        heir = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
        )
        try:
            wait_until(lambda: kernel.command_line(heir.pid)[-1:] == ("input()",))
            before = kernel.listeners()[port][0].pid
            listener.close()
            assert before in (os.getpid(), heir.pid)
            assert kernel.listeners()[port][0].pid == heir.pid
        finally:
            heir.kill()
            heir.communicate()


def test_a_live_process_is_alive_and_an_ended_one_dead(kernel: Kernel) -> None:
    boot = kernel.identity.boot_id
    with program("") as child:
        start = kernel.start_ticks(child.pid)
        assert kernel.liveness(child.pid, start, boot) is Liveness.ALIVE
    assert kernel.liveness(child.pid, start, boot) is Liveness.DEAD
    assert kernel.start_ticks(child.pid) is None


def test_a_stopped_process_is_alive(kernel: Kernel) -> None:
    with program("") as child:
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: kernel.processes()[child.pid].state in "Tt")
        start = kernel.start_ticks(child.pid)
        assert kernel.liveness(child.pid, start, kernel.identity.boot_id) is Liveness.ALIVE


def test_an_unreaped_process_is_dead(kernel: Kernel) -> None:
    with program("") as child:
        start = kernel.start_ticks(child.pid)
        os.kill(child.pid, signal.SIGKILL)
        wait_until(
            lambda: kernel.liveness(child.pid, start, kernel.identity.boot_id) is Liveness.DEAD
        )
        assert child.returncode is None


def test_another_process_with_the_same_pid_is_not_taken_for_the_first(kernel: Kernel) -> None:
    start = kernel.start_ticks(os.getpid())
    assert start is not None
    verdict = kernel.liveness(os.getpid(), start - 1, kernel.identity.boot_id)
    assert verdict is Liveness.DEAD


def test_a_process_of_an_earlier_boot_is_dead(kernel: Kernel) -> None:
    start = kernel.start_ticks(os.getpid())
    assert kernel.liveness(os.getpid(), start, "another boot") is Liveness.DEAD


def test_a_process_of_another_pid_namespace_is_unknown() -> None:
    kernel = LinuxKernel()
    boot = kernel.identity.boot_id.partition(":")[0]
    start = kernel.start_ticks(os.getpid())
    assert kernel.liveness(os.getpid(), start, f"{boot}:1") is Liveness.UNKNOWN


def test_a_live_pid_without_a_start_is_unknown(kernel: Kernel) -> None:
    verdict = kernel.liveness(os.getpid(), None, kernel.identity.boot_id)
    assert verdict is Liveness.UNKNOWN


def test_the_process_table_tells_parents_and_what_a_process_uses(kernel: Kernel) -> None:
    with program("") as child:
        table = kernel.processes()
        assert table[child.pid].ppid == os.getpid()
        assert table[child.pid].start == kernel.start_ticks(child.pid)
        assert table[os.getpid()].rss_bytes > 1 << 20
        assert table[os.getpid()].cpu_ticks > 0


def test_a_process_is_in_the_first_table_after_it_began_and_in_none_after_its_end() -> None:
    kernel = LinuxKernel()
    before = kernel.processes()
    with program("") as child:
        assert child.pid not in before
        assert child.pid in kernel.processes()
    assert child.pid not in kernel.processes()


def test_a_sleeping_process_is_read_once_and_anew_when_it_runs_another_program() -> None:
    kernel = LinuxKernel()
    execs = "import os, sys; print(flush=True); input(); os.execv('/bin/cat', ['/bin/cat'])"
    with program(execs) as child:
        assert child.stdin is not None

        def sleeping() -> Process | None:
            process = kernel.processes()[child.pid]
            return process if kernel.processes()[child.pid] is process else None

        before = wait_until(sleeping)
        assert before is not None
        child.stdin.write("\n")
        child.stdin.flush()
        wait_until(lambda: kernel.command_line(child.pid) == ("/bin/cat",))
        after = kernel.processes()[child.pid]
        assert after is not before
        assert (after.name, after.start) == ("cat", before.start)


def test_a_process_name_with_brackets_and_spaces_is_read_whole() -> None:
    name = ") S 1 1 (x"
    kernel = LinuxKernel()
    with program(f"open('/proc/self/comm', 'w').write({name!r})") as child:
        assert kernel.processes()[child.pid].name == name
        assert kernel.processes()[child.pid].ppid == os.getpid()


def test_descendants_are_found_across_new_sessions() -> None:
    grandchild = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-I', '-S', '-c', 'input()'], start_new_session=True)"
    )
    with program(grandchild) as child:
        table = LinuxKernel().processes()
        found = descendants(table, os.getpid())
        below = descendants(table, child.pid)
        assert child.pid in found
        assert os.getpid() not in found
        assert len(below) == 1
        assert below < found
        assert table[below.copy().pop()].session == below.pop()


def test_what_a_process_calls_itself_is_one_printable_clipped_line() -> None:
    line = one_line(("evil\x1b]0;owned\x07\n", "‮txt", "x" * 5000))
    assert line.isprintable()
    assert len(line) <= 200


@pytest.mark.parametrize("kernel", [LinuxKernel(), PortableKernel()], ids=["linux", "portable"])
def test_a_process_shows_what_it_was_started_with(kernel: Kernel) -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, env={"A": "1=2", "B": ""}) as child:
        wait_until(lambda: kernel.command_line(child.pid) == ("/bin/cat",))
        assert kernel.environment(child.pid) == {"A": "1=2", "B": ""}
    assert kernel.environment(child.pid) == {}
