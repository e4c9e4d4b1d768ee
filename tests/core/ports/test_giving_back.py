"""How a port that was given back becomes free again."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autocoder.core.errors import PoolExhausted, RefusedError
from autocoder.core.models import (
    Holder,
    LeaseState,
)
from autocoder.core.probe import local_kernel
from support.kernel import Clock, SimulatedKernel
from support.ledgers import Make, agent, run_agent, small, state_of, texts
from support.sockets import leave_time_wait, reserved_ports
from support.waiting import wait_until


def test_a_released_port_rests_before_it_is_leased_again(make: Make, clock: Clock) -> None:
    allocator = make(cooldown_s=30.0)
    allocator.lease(agent(1, pid=None))
    allocator.release("a-1", "/project")
    assert state_of(allocator, 5000) is LeaseState.COOLING
    assert allocator.lease(agent(2)).api_port == 5001
    clock.advance(29)
    allocator.settle()
    assert allocator.lease(agent(3)).api_port == 5002
    clock.advance(2)
    allocator.settle()
    assert allocator.lease(agent(4)).api_port == 5000


def test_the_port_that_rested_longest_is_leased_when_no_other_is_free(
    make: Make, clock: Clock
) -> None:
    allocator = make(api=small(5000, 2), web=small(5200, 2), auto_expand=False)
    allocator.lease(agent(1, pid=None))
    allocator.lease(agent(2, pid=None))
    allocator.release("a-2", "/project")
    clock.advance(1)
    allocator.release("a-1", "/project")
    assert allocator.lease(agent(3)).api_port == 5001
    assert allocator.lease(agent(4)).api_port == 5000


def test_no_port_is_leased_twice_within_the_cool_down_while_others_are_free(
    make: Make, clock: Clock
) -> None:
    allocator = make(cooldown_s=30.0)
    released: dict[int, float] = {}
    for number in range(80):
        clock.advance(0.5)
        allocator.settle()
        pair = allocator.lease(agent(number, pid=None))
        for port in (pair.api_port, pair.web_port):
            assert clock() - released.get(port, 0.0) >= 30.0
            released[port] = clock()
        allocator.release(f"a-{number}", "/project")


def test_ports_stay_releasing_while_the_worker_lives(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    allocator = make()
    run_agent(allocator, kernel)
    kernel.bound |= {5000, 5173}
    allocator.release("a-1", "/project")
    clock.advance(100)
    allocator.settle()
    assert state_of(allocator, 5000) is LeaseState.RELEASING
    kernel.end(200)
    kernel.bound.clear()
    clock.advance(1)
    allocator.settle()
    assert state_of(allocator, 5000) is LeaseState.COOLING


def test_a_worker_whose_life_is_unknown_keeps_its_ports(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    allocator = make()
    run_agent(allocator, kernel)
    allocator.release("a-1", "/project")
    kernel.end(200)
    kernel.hidden.add(200)
    clock.advance(3600)
    allocator.settle()
    assert state_of(allocator, 5000) is LeaseState.RELEASING


def test_what_a_dead_agent_left_listening_keeps_the_port_out_with_its_name(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    allocator = make()
    allocator.lease(agent(1, pid=None))
    kernel.run(666)
    kernel.listening[5000] = 666
    allocator.release("a-1", "/project")
    assert state_of(allocator, 5000) is LeaseState.RELEASING
    clock.advance(11)
    notices = allocator.settle()
    (lease,) = [lease for lease in allocator.leases() if lease.port == 5000]
    assert (lease.state, lease.listener_pid) == (LeaseState.QUARANTINED, 666)
    assert state_of(allocator, 5173) is LeaseState.COOLING
    assert any("pid 666" in text and "a-1" in text for text in texts(notices))


def test_a_pair_is_let_go_of_together(make: Make, kernel: SimulatedKernel, clock: Clock) -> None:
    allocator = make()
    allocator.lease(agent(1, pid=None))
    kernel.bound.add(5173)
    allocator.release("a-1", "/project")
    clock.advance(1)
    allocator.settle()
    assert state_of(allocator, 5000) is LeaseState.RELEASING
    kernel.bound.clear()
    clock.advance(1)
    allocator.settle()
    assert state_of(allocator, 5000) is state_of(allocator, 5173) is LeaseState.COOLING


def test_every_released_port_has_left_its_state_within_15_seconds(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    allocator = make()
    for number in range(20):
        allocator.lease(agent(number, pid=None))
        kernel.bound.add(5000 + number)
        allocator.release(f"a-{number}", "/project")
    for _ in range(15):
        clock.advance(1)
        allocator.settle()
    assert LeaseState.RELEASING not in {lease.state for lease in allocator.leases()}


def test_closed_connections_let_a_port_rest_and_not_be_quarantined(make: Make) -> None:
    with reserved_ports(4) as ports:
        allocator = make(
            api=small(ports[0], 2), web=small(ports[2], 2), kernel=local_kernel(), cooldown_s=0.0
        )
        allocator.lease(Holder("a-1", "/project"))
        leave_time_wait(ports[0])
        allocator.release("a-1", "/project")
        assert state_of(allocator, ports[0]) is LeaseState.COOLING
        allocator.settle()
        assert state_of(allocator, ports[0]) is LeaseState.COOLING
        assert state_of(allocator, ports[2]) is None


def test_a_quarantined_port_is_back_within_ten_seconds_of_being_freed(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    kernel.bound.add(5000)
    allocator = make()
    allocator.lease(agent(1))
    for _ in range(600):
        clock.advance(1)
        allocator.settle()
    kernel.bound.clear()
    seconds = 0
    while state_of(allocator, 5000) is not None:
        clock.advance(1)
        seconds += 1
        allocator.settle()
    assert seconds <= 10


def test_a_quarantined_port_is_leased_at_once_when_it_was_freed_and_nothing_else_is(
    make: Make, kernel: SimulatedKernel
) -> None:
    kernel.bound |= {5000, 5001}
    allocator = make(api=small(5000, 2), web=small(5200, 2), auto_expand=False)
    with pytest.raises(PoolExhausted):
        allocator.lease(agent(1))
    kernel.bound.discard(5001)
    assert allocator.lease(agent(1)).api_port == 5001


def test_a_clock_set_back_does_not_lengthen_a_rest(make: Make, clock: Clock) -> None:
    allocator = make(cooldown_s=30.0)
    allocator.lease(agent(1, pid=None))
    allocator.release("a-1", "/project")
    clock.advance(-86_400)
    allocator.settle()
    assert state_of(allocator, 5000) is None


def test_a_clock_set_forward_neither_frees_nor_drops_what_is_held(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    allocator = make()
    pair = allocator.lease(agent(1))
    kernel.bound |= {5000, 5173}
    clock.advance(10 * 365 * 86_400)
    allocator.settle()
    assert allocator.lease(agent(1)) == pair


def test_an_outside_holders_lease_ends_with_its_process(make: Make) -> None:
    with reserved_ports(4) as ports:
        allocator = make(api=small(ports[0], 2), web=small(ports[2], 2), kernel=local_kernel())
        script = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE
        )
        try:
            allocator.lease(Holder("script", pid=script.pid))
            allocator.settle()
            assert state_of(allocator, ports[0]) is LeaseState.LEASED
        finally:
            script.kill()
            script.communicate()
        allocator = make(api=small(ports[0], 2), web=small(ports[2], 2), kernel=local_kernel())
        said: list[str] = []

        def rests() -> bool:
            said.extend(texts(allocator.settle()))
            return state_of(allocator, ports[0]) is not LeaseState.LEASED

        wait_until(rests)
        assert said == [f"the lease of script has ended: pid {script.pid} has ended"]


def test_an_agents_lease_does_not_end_with_its_process_alone(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    allocator = make()
    kernel.run(200)
    allocator.lease(Holder("a-1", "/project", 200))
    kernel.end(200)
    clock.advance(60)
    allocator.settle()
    assert state_of(allocator, 5000) is LeaseState.LEASED


# ---------------------------------------------------------------------- when asked


def test_the_pair_of_a_dead_agent_is_given_back_when_asked_for_one_port(
    make: Make, kernel: SimulatedKernel
) -> None:
    allocator = make()
    kernel.run(200)
    allocator.lease(Holder("a-1", "/project", 200))
    kernel.end(200)
    allocator.release_port(5173)
    assert state_of(allocator, 5000) is state_of(allocator, 5173) is LeaseState.COOLING
    assert texts(allocator.settle()) == ["the lease of a-1 has ended: pid 200 was dead"]


@pytest.mark.parametrize("state", [LeaseState.LEASED, LeaseState.RELEASING])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_port_whose_holder_may_live_is_not_given_back_when_asked(
    state: LeaseState, hidden: bool, make: Make, kernel: SimulatedKernel
) -> None:
    allocator = make()
    kernel.run(200)
    allocator.lease(Holder("a-1", "/project", 200))
    if state is LeaseState.RELEASING:
        allocator.release("a-1", "/project")
    if hidden:
        kernel.hidden.add(200)
    before = allocator.leases()
    words = "5000 is held by a-1 of /project, whose process 200 " + (
        "may live" if hidden else "lives"
    )
    with pytest.raises(RefusedError, match=words):
        allocator.release_port(5000)
    assert allocator.leases() == before


def test_a_script_without_a_process_gives_back_by_name_alone(make: Make) -> None:
    allocator = make()
    allocator.lease(Holder("script"), ttl_s=60)
    with pytest.raises(RefusedError, match="held by script, which names no process") as refusal:
        allocator.release_port(5000)
    assert "release script" in refusal.value.hint


def test_what_a_script_without_a_process_gave_back_may_be_asked_for(
    make: Make, kernel: SimulatedKernel
) -> None:
    allocator = make()
    kernel.bound.add(5000)
    allocator.lease(Holder("script"), ttl_s=60)
    kernel.bound.add(5001)
    allocator.release("script", "")
    assert state_of(allocator, 5001) is LeaseState.RELEASING
    kernel.bound.clear()
    assert allocator.release_port(5001) == (5001, 5173)
    assert state_of(allocator, 5001) is LeaseState.COOLING


def test_a_quarantine_ends_when_asked_once_the_port_is_free(
    make: Make, kernel: SimulatedKernel
) -> None:
    kernel.run(666)
    kernel.listening[5000] = 666
    allocator = make()
    allocator.lease(agent(1))
    with pytest.raises(RefusedError, match="5000 is still held by pid 666 program 666"):
        allocator.release_port(5000)
    assert state_of(allocator, 5000) is LeaseState.QUARANTINED
    kernel.end(666)
    allocator.release_port(5000)
    assert state_of(allocator, 5000) is None


def test_a_port_that_nobody_has_cannot_be_given_back(make: Make) -> None:
    with pytest.raises(RefusedError, match="4711 is not leased"):
        make().release_port(4711)


def test_a_probe_finds_a_quarantined_port_free_before_it_is_due(
    make: Make, kernel: SimulatedKernel
) -> None:
    kernel.bound.add(5000)
    allocator = make()
    allocator.lease(agent(1))
    found = allocator.probe_port(5000)
    assert found is not None
    assert found.state is LeaseState.QUARANTINED
    kernel.bound.clear()
    assert allocator.probe_port(5000) is None
    assert "port 5000 is free again" in texts(allocator.settle())


def test_a_probe_lets_a_releasing_pair_rest_once_its_worker_is_dead(
    make: Make, kernel: SimulatedKernel
) -> None:
    allocator = make()
    kernel.run(200)
    allocator.lease(Holder("a-1", "/project", 200))
    allocator.release("a-1", "/project")
    kernel.end(200)
    found = allocator.probe_port(5000)
    assert found is not None
    assert found.state is state_of(allocator, 5173) is LeaseState.COOLING


def test_a_probe_ends_neither_a_lease_nor_a_rest(make: Make) -> None:
    allocator = make()
    allocator.lease(agent(1))
    allocator.lease(agent(2, pid=None))
    allocator.release("a-2", "/project")
    before = allocator.leases()
    for port in (5000, 5001, 4711):
        allocator.probe_port(port)
    assert allocator.leases() == before


# ---------------------------------------------------------------------- little work


def test_settling_an_idle_ledger_reads_no_row(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocator = make()
    allocator.lease(agent(1))
    allocator.settle()
    allocator.settle()
    asked: list[object] = []
    monkeypatch.setattr(allocator._ledger, "unsettled", asked.append)
    clock.advance(5)
    assert allocator.settle() == ()
    assert not asked


def test_the_gaps_are_what_the_rows_leave(make: Make, folder: Path) -> None:
    allocator = make(api=small(5000, 6), web=small(5200, 6), cooldown_s=0.0)
    for number in range(6):
        allocator.lease(agent(number, pid=None))
    for number in (1, 3, 4, 0, 5):
        allocator.release(f"a-{number}", "/project")
        allocator.settle()
    with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as file:
        rows = {port for (port,) in file.execute("SELECT port FROM port_leases")}
        gaps = file.execute("SELECT start, until FROM port_gaps").fetchall()
    assert rows == {5002, 5202}
    assert sorted(gaps) == [(0, 5002), (5003, 5202), (5203, 65536)]


def test_a_clock_that_was_set_back_keeps_no_port_out_and_ends_no_lease(
    make: Make, clock: Clock, kernel: SimulatedKernel
) -> None:
    allocator = make(cooldown_s=30.0)
    kernel.bound.add(5000)
    lease = allocator.lease(Holder("outside", pid=None), ttl_s=600)
    assert lease.api_port == 5001
    for _ in range(12):
        clock.advance(10)
        allocator.settle()
    assert state_of(allocator, 5000) is LeaseState.QUARANTINED

    clock.advance(-115)
    kernel.bound.discard(5000)
    allocator.settle()
    clock.advance(10)
    allocator.settle()

    assert state_of(allocator, 5000) is None
    assert state_of(allocator, 5001) is LeaseState.LEASED


def test_a_lease_with_a_time_outlives_a_clock_set_back_to_before_it(
    make: Make, clock: Clock
) -> None:
    allocator = make()
    allocator.lease(Holder("outside"), ttl_s=600)
    clock.advance(-1000)
    allocator.settle()
    assert state_of(allocator, 5000) is LeaseState.LEASED


def test_a_port_is_probed_only_while_nobody_else_can_be_granted_it(
    make: Make, kernel: SimulatedKernel, clock: Clock, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocator = make(cooldown_s=5.0)
    probed: list[int] = []

    def is_free_now(port: int, address: str = "") -> bool:
        with (
            contextlib.closing(sqlite3.connect(folder / "ledger.db", timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("BEGIN IMMEDIATE")
        probed.append(port)
        return SimulatedKernel.is_free(kernel, port, address)

    monkeypatch.setattr(kernel, "is_free", is_free_now)

    def ports_probed_by(step: Callable[[], object]) -> set[int]:
        probed.clear()
        step()
        return set(probed)

    def time_passes() -> None:
        clock.advance(20)
        allocator.settle()

    assert ports_probed_by(lambda: run_agent(allocator, kernel)) == {5000, 5173}
    kernel.listening[5173] = 666
    kernel.end(200)
    assert ports_probed_by(lambda: allocator.release("a-1", "/project")) == {5000, 5173}
    assert ports_probed_by(time_passes) == {5000, 5173}
    assert state_of(allocator, 5173) is LeaseState.QUARANTINED
    assert ports_probed_by(time_passes) == {5000, 5173}
    assert state_of(allocator, 5000) is None
    assert ports_probed_by(lambda: allocator.probe_port(5173)) == {5173}
