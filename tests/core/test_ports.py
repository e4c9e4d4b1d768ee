import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autocoder.core.errors import PoolExhausted, RefusedError, StaleLease, UsageError
from autocoder.core.models import (
    Holder,
    LeaseState,
    Notice,
    PortPair,
    PortRange,
    Role,
    Severity,
)
from autocoder.core.ports import BROWSER_BLOCKED, PortAllocator, PortRules, host_rules
from autocoder.core.probe import HostIdentity, local_kernel
from autocoder.core.settings import PortSettings
from support.kernel import Clock, SimulatedKernel
from support.sockets import WAYS_TO_TAKE, lan_address, leave_time_wait, reserved_ports
from support.waiting import wait_until

RULES = PortRules(BROWSER_BLOCKED | {8888}, PortRange(32768, 61000))
Make = Callable[..., PortAllocator]


@pytest.fixture
def kernel() -> SimulatedKernel:
    kernel = SimulatedKernel()
    kernel.run(100, "orchestrator")
    return kernel


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, kernel: SimulatedKernel, clock: Clock) -> Iterator[Make]:
    """Opens the same ledger file each time; on the simulated kernel and clock unless told."""
    with contextlib.ExitStack() as opened:

        def build(**changes: object) -> PortAllocator:
            given = {"kernel": kernel, "now": clock, "rules": RULES}
            for name in ("kernel", "now", "rules"):
                if name in changes:
                    given[name] = changes.pop(name)
            path = changes.pop("path", tmp_path / "ledger.db")
            allocator = PortAllocator(
                path,  # type: ignore[arg-type]
                PortSettings(**changes),  # type: ignore[arg-type]
                ui_port=8888,
                **given,  # type: ignore[arg-type]
            )
            opened.callback(allocator.close)
            return allocator

        yield build


def agent(number: int, pid: int | None = 100) -> Holder:
    return Holder(f"a-{number}", "/project", pid, None if pid is None else 101)


def state_of(allocator: PortAllocator, port: int) -> LeaseState | None:
    return next((lease.state for lease in allocator.leases() if lease.port == port), None)


def texts(notices: tuple[Notice, ...]) -> list[str]:
    return [notice.text for notice in notices]


def small(first: int, count: int) -> tuple[PortRange, ...]:
    return (PortRange(first, first + count),)


# ---------------------------------------------------------------------- leasing


def test_agents_get_the_lowest_free_pair_each(make: Make) -> None:
    allocator = make()
    pairs = [allocator.lease(agent(n)) for n in range(3)]
    assert [(p.api_port, p.web_port) for p in pairs] == [(5000, 5173), (5001, 5174), (5002, 5175)]


def test_a_holder_that_asks_again_gets_the_pair_it_has(make: Make) -> None:
    allocator = make()
    first = allocator.lease(agent(1))
    assert allocator.lease(agent(1)) == first
    assert len(allocator.leases()) == 2


def test_the_same_agent_id_in_two_projects_is_two_holders(make: Make) -> None:
    allocator = make()
    one = allocator.lease(Holder("a-1", "/one"))
    other = allocator.lease(Holder("a-1", "/two"))
    assert {one.api_port, one.web_port}.isdisjoint({other.api_port, other.web_port})


def test_a_lease_outlives_the_allocator_that_granted_it(make: Make) -> None:
    first = make()
    pair = first.lease(agent(1))
    first.close()
    assert make().lease(agent(1)) == pair


def test_hosts_that_share_a_file_do_not_share_ports(make: Make) -> None:
    here = make().lease(agent(1))
    elsewhere = SimulatedKernel(HostIdentity("other host", "boot"), alive={100: 101})
    there = make(kernel=elsewhere).lease(agent(2))
    assert (there.api_port, there.web_port) == (here.api_port, here.web_port)


def test_epochs_grow_with_every_grant(make: Make) -> None:
    allocator = make()
    epochs = []
    for number in range(3):
        epochs.append(allocator.lease(agent(number)).epoch)
        allocator.release(f"a-{number}", "/project")
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("way", WAYS_TO_TAKE)
def test_a_port_that_is_taken_in_any_way_is_left_out_and_quarantined(
    way: str, role: Role, make: Make
) -> None:
    if way == "LAN address" and lan_address() is None:
        pytest.skip("this host has no address but loopback")
    with reserved_ports(8) as ports:
        api, web = small(ports[0], 4), small(ports[4], 4)
        allocator = make(api=api, web=web, kernel=local_kernel())
        busy = ports[0] if role is Role.API else ports[4]
        taken = WAYS_TO_TAKE[way](busy)
        pair = allocator.lease(Holder("a-1", "/project"))
        assert busy not in (pair.api_port, pair.web_port)
        assert state_of(allocator, busy) is LeaseState.QUARANTINED
        if taken is not None:
            taken.close()


def test_skipping_the_check_grants_without_asking_the_kernel(
    make: Make, kernel: SimulatedKernel
) -> None:
    kernel.bound.add(5000)
    assert make(skip_check=True).lease(agent(1)).api_port == 5000


def test_ports_that_browsers_refuse_are_never_leased(make: Make) -> None:
    allocator = make(api=small(5055, 10), web=small(6660, 20), auto_expand=False)
    leased = set()
    with contextlib.suppress(PoolExhausted):
        for number in range(20):
            pair = allocator.lease(agent(number))
            leased |= {pair.api_port, pair.web_port}
    assert {5060, 5061} <= set(range(5055, 5065)) - leased
    assert len(leased & set(range(5055, 5065))) == 8
    assert leased.isdisjoint(BROWSER_BLOCKED)


def test_the_panels_own_port_is_never_leased(make: Make) -> None:
    pair = make(api=small(8888, 2), web=small(9000, 2)).lease(agent(1))
    assert pair.api_port == 8889


def test_the_default_api_pool_has_98_usable_ports_and_says_so(make: Make) -> None:
    pools = {pool.role: pool for pool in make().status().pools}
    assert (pools[Role.API].total, pools[Role.API].usable) == (100, 98)
    assert (pools[Role.WEB].total, pools[Role.WEB].usable) == (100, 100)


def test_both_ports_are_granted_or_none(make: Make) -> None:
    allocator = make(api=small(5000, 3), web=small(6100, 1), auto_expand=False)
    allocator.lease(agent(1))
    with pytest.raises(PoolExhausted) as refusal:
        allocator.lease(agent(2))
    assert refusal.value.role == "web"
    assert {lease.holder for lease in allocator.leases()} == {"a-1"}


def test_a_drained_pool_refuses_and_serves_again_after_one_release(make: Make) -> None:
    allocator = make(auto_expand=False, cooldown_s=0.0)
    for number in range(98):
        allocator.lease(agent(number, pid=None))
    with pytest.raises(PoolExhausted) as refusal:
        allocator.lease(agent(98))
    assert (refusal.value.usable, refusal.value.leased) == (98, 98)
    assert "expand api" in refusal.value.hint
    allocator.release("a-50", "/project")
    pair = allocator.lease(agent(98, pid=None))
    assert pair.api_port in range(5000, 5100)


def test_exhaustion_names_who_holds_the_ports(make: Make, kernel: SimulatedKernel) -> None:
    kernel.run(812, "postgres")
    kernel.listening = {5000: 812, 5001: 812}
    allocator = make(api=small(5000, 2), web=small(5200, 2), auto_expand=False)
    with pytest.raises(PoolExhausted, match="5000 by pid 812 program 812, 5001 by pid 812"):
        allocator.lease(agent(1))


def test_ten_refusals_in_a_row_are_worth_one_alert(make: Make) -> None:
    allocator = make(api=small(5000, 1), web=small(5200, 1), auto_expand=False)
    allocator.lease(agent(0))
    for number in range(1, 25):
        with pytest.raises(PoolExhausted):
            allocator.lease(agent(number))
    alerts = [n for n in allocator.settle() if n.severity is Severity.ERROR]
    assert len(alerts) == 1
    assert "10 leases in a row were refused" in alerts[0].text
    status = allocator.status()
    assert (status.port_allocation_failures, status.consecutive_failures) == (24, 24)


def test_a_granted_lease_ends_the_row_of_refusals(make: Make) -> None:
    allocator = make(api=small(5000, 1), web=small(5200, 1), auto_expand=False, cooldown_s=0.0)
    allocator.lease(agent(0, pid=None))
    with pytest.raises(PoolExhausted):
        allocator.lease(agent(1))
    allocator.release("a-0", "/project")
    allocator.lease(agent(1))
    status = allocator.status()
    assert (status.port_allocation_failures, status.consecutive_failures) == (1, 0)


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "x" * 201])
def test_a_holder_needs_a_printable_name(name: str, make: Make) -> None:
    with pytest.raises(UsageError, match="name of a holder"):
        make().lease(Holder(name))


def test_a_process_that_does_not_exist_cannot_hold_ports(make: Make) -> None:
    with pytest.raises(RefusedError, match="no process 4711"):
        make().lease(Holder("script", pid=4711))


# ---------------------------------------------------------------------- epochs and holders


def test_confirming_lets_the_worker_bound_the_lease(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    allocator = make()
    pair = allocator.lease(agent(1))
    kernel.run(200)
    allocator.confirm(Holder("a-1", "/project", 200), pair.epoch)
    assert {lease.pid for lease in allocator.leases()} == {200}


def test_an_old_epoch_may_neither_confirm_nor_release(make: Make) -> None:
    allocator = make()
    old = allocator.lease(agent(1, pid=None)).epoch
    allocator.release("a-1", "/project", epoch=old)
    new = allocator.lease(agent(1)).epoch
    with pytest.raises(StaleLease):
        allocator.confirm(agent(1), old)
    with pytest.raises(StaleLease):
        allocator.release("a-1", "/project", epoch=old)
    allocator.release("a-1", "/project", epoch=new)


def test_confirming_what_was_released_is_refused(make: Make) -> None:
    allocator = make()
    pair = allocator.lease(agent(1))
    allocator.release("a-1", "/project")
    with pytest.raises(StaleLease, match="holds none"):
        allocator.confirm(agent(1), pair.epoch)


def test_releasing_twice_or_what_was_never_leased_does_nothing(make: Make) -> None:
    allocator = make()
    allocator.lease(agent(1))
    allocator.release("a-1", "/project")
    before = allocator.leases()
    allocator.release("a-1", "/project")
    allocator.release("a-9", "/project")
    assert allocator.leases() == before


def test_a_script_that_starts_again_takes_over_the_pair_of_its_dead_namesake(
    make: Make, kernel: SimulatedKernel
) -> None:
    allocator = make()
    kernel.run(300)
    old = allocator.lease(Holder("script", pid=300))
    kernel.end(300)
    kernel.run(301)
    new = allocator.lease(Holder("script", pid=301))
    assert (new.api_port, new.web_port) == (old.api_port, old.web_port)
    assert new.epoch > old.epoch


# ---------------------------------------------------------------------- giving back


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
    for number in range(200):
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
    pair = allocator.lease(agent(1))
    kernel.run(200)
    allocator.confirm(Holder("a-1", "/project", 200), pair.epoch)
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
    pair = allocator.lease(agent(1))
    kernel.run(200)
    allocator.confirm(Holder("a-1", "/project", 200), pair.epoch)
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


# ---------------------------------------------------------------------- the same pair again


def test_work_that_goes_on_gets_its_pair_back_while_it_rests(make: Make) -> None:
    allocator = make(cooldown_s=30.0)
    allocator.lease(agent(1))
    before = allocator.lease(agent(2, pid=None))
    allocator.release("a-2", "/project")
    again = allocator.lease(agent(3), preferred=before)
    assert (again.api_port, again.web_port) == (before.api_port, before.web_port)
    assert again.epoch > before.epoch


def test_work_that_goes_on_gets_its_pair_back_when_it_has_rested(make: Make, clock: Clock) -> None:
    allocator = make(cooldown_s=30.0)
    allocator.lease(agent(1))
    before = allocator.lease(agent(2, pid=None))
    allocator.release("a-2", "/project")
    clock.advance(31)
    allocator.settle()
    assert allocator.lease(agent(3), preferred=before).api_port == before.api_port


def test_connections_that_the_work_itself_closed_do_not_keep_its_pair_from_it(
    make: Make, kernel: SimulatedKernel
) -> None:
    allocator = make(cooldown_s=30.0)
    before = allocator.lease(agent(1, pid=None))
    kernel.lingering.add(before.api_port)
    allocator.release("a-1", "/project")
    assert allocator.lease(agent(2), preferred=before).api_port == before.api_port


def _another_rests(allocator: PortAllocator, kernel: SimulatedKernel, before: PortPair) -> None:
    allocator.lease(agent(7, pid=None), preferred=before)
    allocator.release("a-7", "/project")


def _another_has_it(allocator: PortAllocator, kernel: SimulatedKernel, before: PortPair) -> None:
    allocator.lease(agent(7), preferred=before)


def _one_is_bound(allocator: PortAllocator, kernel: SimulatedKernel, before: PortPair) -> None:
    kernel.bound.add(before.web_port)


@pytest.mark.parametrize("meanwhile", [_another_rests, _another_has_it, _one_is_bound])
def test_a_preferred_pair_that_is_not_to_be_had_changes_nothing_about_the_choice(
    meanwhile: Callable[[PortAllocator, SimulatedKernel, PortPair], None],
    make: Make,
    kernel: SimulatedKernel,
) -> None:
    allocator = make(cooldown_s=30.0)
    before = allocator.lease(agent(1, pid=None))
    allocator.release("a-1", "/project")
    meanwhile(allocator, kernel, before)
    pair = allocator.lease(agent(2), preferred=before)
    assert (pair.api_port, pair.web_port) == (5001, 5174)


@pytest.mark.parametrize("ports", [(4000, 5173), (5060, 5173), (5173, 5000)])
def test_a_preferred_port_that_no_pool_offers_is_not_granted(
    ports: tuple[int, int], make: Make
) -> None:
    pair = make().lease(agent(1), preferred=PortPair(*ports, epoch=0))
    assert (pair.api_port, pair.web_port) == (5000, 5173)


# ---------------------------------------------------------------------- another pair


def test_a_pair_that_turns_out_to_be_taken_is_replaced(make: Make, kernel: SimulatedKernel) -> None:
    allocator = make()
    pair = allocator.lease(agent(1))
    kernel.run(666)
    kernel.listening[5000] = 666
    other = allocator.replace(agent(1), pair.epoch)
    assert (other.api_port, other.web_port) == (5001, 5174)
    assert state_of(allocator, 5000) is LeaseState.QUARANTINED
    assert state_of(allocator, 5173) is LeaseState.COOLING


# ---------------------------------------------------------------------- growth


def test_a_pool_grows_by_itself_when_nine_tenths_are_used_once_per_crossing(make: Make) -> None:
    allocator = make()
    said: list[str] = []
    for number in range(300):
        allocator.lease(agent(number))
        said += texts(allocator.settle())
    api = [text for text in said if text.startswith("Port pool api")]
    assert api[0] == "Port pool api at 90% capacity, expanded range 5273-5373"
    assert len(api) == 3
    ports = [lease.port for lease in allocator.leases()]
    assert len(ports) == len(set(ports)) == 600


@pytest.mark.parametrize("agents", [1, 88, 98, 99, 150])
def test_any_number_of_agents_requested_at_once_gets_pairs(agents: int, make: Make) -> None:
    allocator = make()
    pairs = [allocator.lease(agent(number)) for number in range(agents)]
    ports = [port for pair in pairs for port in (pair.api_port, pair.web_port)]
    assert len(set(ports)) == 2 * agents
    assert BROWSER_BLOCKED.isdisjoint(ports)
    assert all(port < 32768 for port in ports)


def test_growth_stops_at_the_limit_and_says_so_once(make: Make) -> None:
    allocator = make(api=small(5000, 10), web=small(5200, 100), max_ports=10)
    for number in range(10):
        allocator.lease(agent(number))
    said = texts(allocator.settle()) + texts(allocator.settle())
    with pytest.raises(PoolExhausted, match="api") as refusal:
        allocator.lease(agent(10))
    said += texts(allocator.settle())
    assert len([text for text in said if "cannot grow" in text]) == 1
    assert "max_ports" in refusal.value.hint


def test_growth_skips_the_other_pool_and_ports_that_browsers_refuse(make: Make) -> None:
    allocator = make(api=small(5900, 60), web=small(5960, 30))
    assert allocator.expand(Role.API) == PortRange(6001, 6061)


def test_growth_outlives_the_allocator_and_is_seen_by_the_others(make: Make) -> None:
    one, other = make(), make()
    added = one.expand(Role.WEB, 5)
    assert added in other.status().pools[1].ranges
    assert other.expand(Role.WEB, 5).start >= added.end


def test_a_pool_can_be_extended_by_a_range(make: Make) -> None:
    allocator = make(api=small(5000, 1), web=small(5200, 9))
    allocator.expand(Role.API, PortRange(7000, 7003))
    ports = [allocator.lease(agent(number)).api_port for number in range(4)]
    assert ports == [5000, 7000, 7001, 7002]


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        (PortRange(5050, 5060), "a pool has already"),
        (PortRange(5250, 5300), "a pool has already"),
        (PortRange(40000, 40010), "kernel hands out"),
        (PortRange(32760, 32770), "kernel hands out"),
        (PortRange(6000, 6010), "browsers refuse"),
        (PortRange(8880, 8890), "contains 8888"),
        (PortRange(80, 90), "no range of ports"),
        (PortRange(65530, 65540), "no range of ports"),
        (PortRange(7000, 7000), "no range of ports"),
        (PortRange(7010, 7000), "no range of ports"),
        (0, "cannot be extended by 0"),
        (-5, "cannot be extended by -5"),
        (901, "limit of 1000"),
        (PortRange(10100, 12000), "limit of 1000"),
        (60000, "no 60000 consecutive"),
    ],
)
def test_a_pool_is_not_extended_by_what_it_may_not_have(
    amount: int | PortRange, reason: str, make: Make
) -> None:
    allocator = make()
    before = allocator.status()
    with pytest.raises((RefusedError, UsageError), match=reason):
        allocator.expand(Role.API, amount)
    assert allocator.status() == before


def test_shrinking_never_drops_a_held_port(make: Make) -> None:
    allocator = make(api=small(5000, 1), web=small(5200, 9))
    added = allocator.expand(Role.API, PortRange(7000, 7003))
    allocator.lease(agent(1, pid=None))
    allocator.lease(agent(2, pid=None))
    with pytest.raises(RefusedError, match="a-2 holds 7000"):
        allocator.shrink(Role.API)
    allocator.release("a-2", "/project")
    assert allocator.shrink(Role.API, added) == added
    assert allocator.status().pools[0].total == 1


def test_what_settings_declare_cannot_be_shrunk_here(make: Make) -> None:
    with pytest.raises(UsageError, match="not extended"):
        make().shrink(Role.API)


def test_a_declared_range_wins_over_growth_and_the_difference_is_said(make: Make) -> None:
    make().expand(Role.API, PortRange(7000, 7010))
    later = make(web=small(7005, 20))
    assert later.status().pools[0].total == 100
    (said,) = texts(later.settle())
    assert "7000-7009 overlaps 7005-7024" in said


def test_a_declared_range_inside_the_ephemeral_one_is_refused(make: Make) -> None:
    with pytest.raises(UsageError, match=r"ports\.web: 40000-40099 overlaps 32768-60999"):
        make(web=small(40000, 100))


def test_the_rules_of_this_host_are_read_from_the_kernel() -> None:
    rules = host_rules(8888)
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert rules.ephemeral == PortRange(int(low), int(high) + 1)
    assert {8888, 5060, 6000} <= rules.never


# ---------------------------------------------------------------------- the seed's names


def test_the_predecessors_calls_work(make: Make) -> None:
    allocator = make(kernel=local_kernel(), skip_check=True)
    pair = allocator.allocate_ports("agent-1")
    assert pair == (5000, 5173)
    status = allocator.get_status()
    assert status["port_allocation_failures"] == 0
    assert status["pools"]["api"]["leased"] == 1  # type: ignore[index]
    assert allocator.release_ports("agent-1") is True
    assert allocator.release_ports("agent-1") is False


def test_the_predecessors_call_answers_none_when_nothing_is_free(make: Make) -> None:
    allocator = make(
        api=small(5000, 1),
        web=small(5200, 1),
        auto_expand=False,
        kernel=local_kernel(),
        skip_check=True,
    )
    allocator.allocate_ports("agent-1")
    assert allocator.allocate_ports("agent-2") is None


# ---------------------------------------------------------------------- many at once


def test_threads_of_one_process_never_get_the_same_port(make: Make) -> None:
    allocator = make()
    pairs = []

    def lease(number: int) -> None:
        pairs.append(allocator.lease(agent(number)))

    threads = [threading.Thread(target=lease, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({pair.api_port for pair in pairs}) == len({pair.web_port for pair in pairs}) == 16


def test_the_gaps_are_what_the_rows_leave(make: Make, tmp_path: Path) -> None:
    allocator = make(api=small(5000, 6), web=small(5200, 6), cooldown_s=0.0)
    for number in range(6):
        allocator.lease(agent(number, pid=None))
    for number in (1, 3, 4, 0, 5):
        allocator.release(f"a-{number}", "/project")
        allocator.settle()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as file:
        rows = {port for (port,) in file.execute("SELECT port FROM port_leases")}
        gaps = file.execute("SELECT start, until FROM port_gaps").fetchall()
    assert rows == {5002, 5202}
    assert sorted(gaps) == [(0, 5002), (5003, 5202), (5203, 65536)]
