"""Who is granted which pair."""

import contextlib
import os
import threading
from collections.abc import Callable

import pytest

from autocoder.core.errors import PoolExhausted, RefusedError, StaleLease, UsageError
from autocoder.core.models import (
    Holder,
    LeaseState,
    PortPair,
    Role,
    Severity,
)
from autocoder.core.ports import BROWSER_BLOCKED, PortAllocator
from autocoder.core.probe import HostIdentity, local_kernel
from support.kernel import Clock, SimulatedKernel
from support.ledgers import Make, agent, run_agent, small, state_of, texts
from support.sockets import WAYS_TO_TAKE, lan_address, listen, reserved_ports


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


# ---------------------------------------------------------------------- epochs and holders


def test_confirming_lets_the_worker_bound_the_lease(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    allocator = make()
    run_agent(allocator, kernel)
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


def test_many_ports_that_others_have_are_told_of_in_one_notice(
    make: Make, kernel: SimulatedKernel
) -> None:
    allocator = make()
    kernel.run(666)
    kernel.listening.update(dict.fromkeys(range(5000, 5012), 666))
    pair = allocator.lease(agent(1))
    (said,) = [text for text in texts(allocator.settle()) if "not leased until" in text]

    assert pair.api_port == 5012
    assert said.startswith("12 ports are held by other programs")
    assert "5000 by pid 666" in said


def test_a_replaced_pair_is_named_in_a_notice_and_its_lease_ends_when_it_would_have(
    make: Make, kernel: SimulatedKernel, clock: Clock
) -> None:
    allocator = make()
    pair = allocator.lease(Holder("script"), ttl_s=60)
    kernel.run(666)
    kernel.listening[5000] = 666
    allocator.replace(Holder("script"), pair.epoch)
    assert any("5000 is held by pid 666" in text for text in texts(allocator.settle()))
    clock.advance(61)
    allocator.settle()
    assert state_of(allocator, 5001) is LeaseState.RELEASING


def test_a_pair_is_not_replaced_for_an_old_epoch(make: Make) -> None:
    allocator = make()
    pair = allocator.lease(agent(1))
    allocator.replace(agent(1), pair.epoch)
    with pytest.raises(StaleLease):
        allocator.replace(agent(1), pair.epoch)


def test_a_program_that_is_faster_than_the_bind_costs_a_pair_each_time_and_no_more(
    make: Make,
) -> None:
    with reserved_ports(20) as ports, contextlib.ExitStack() as intruders:
        allocator = make(
            api=small(ports[0], 10), web=small(ports[10], 10), kernel=local_kernel(), rules=None
        )
        holder = Holder("a-1", "/project", os.getpid())
        pair = allocator.lease(holder)
        for _ in range(2):
            intruders.enter_context(listen(pair.api_port))
            with pytest.raises(OSError, match="in use"):
                listen(pair.api_port)
            pair = allocator.replace(holder, pair.epoch)
        with listen(pair.api_port), listen(pair.web_port):
            assert (pair.api_port, pair.web_port) == (ports[2], ports[12])
        kept_out = {
            lease.port: lease.listener_pid for lease in allocator.leases() if lease.port < ports[2]
        }
        assert kept_out == {ports[0]: os.getpid(), ports[1]: os.getpid()}


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
