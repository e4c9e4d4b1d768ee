"""Ports of the kernel's choice, pools of single addresses, and outside holders."""

import functools
from pathlib import Path

import pytest

from autocoder.core.errors import PoolExhausted, RefusedError, UsageError
from autocoder.core.models import Holder, LeaseState, PortRange, Role
from autocoder.core.ports import PortAllocator, host_rules
from autocoder.core.probe import local_kernel
from autocoder.core.settings import AddressPool, load_settings
from support.kernel import Clock, SimulatedKernel
from support.ledgers import Make, small
from support.sockets import bind, listen, reserved_ports


@pytest.fixture
def real(make: Make) -> Make:
    """Opens the ledger on the real kernel, under its rules."""
    return functools.partial(make, kernel=local_kernel(), rules=None)


# ---------------------------------------------------------------------- mode os


def test_the_kernel_picks_ports_of_its_own_range(real: Make) -> None:
    allocator = real(mode="os")
    pairs = [allocator.lease(Holder(f"a-{n}", "/project")) for n in range(5)]
    ports = [port for pair in pairs for port in (pair.api_port, pair.web_port)]
    assert len(set(ports)) == 10
    assert all(port in host_rules(8888).ephemeral for port in ports)
    assert {lease.port for lease in allocator.leases()} == set(ports)


def test_a_picked_port_is_held_until_its_worker_has_it(real: Make) -> None:
    allocator = real(mode="os")
    pair = allocator.lease(Holder("a-1", "/project"))
    with pytest.raises(OSError, match="in use"):
        bind(pair.api_port)
    with bind(pair.api_port, reuse=True) as server:
        server.listen()
        allocator.confirm(Holder("a-1", "/project"), pair.epoch)
        assert not local_kernel().is_free(pair.api_port)
    assert local_kernel().is_free(pair.web_port)


def test_a_picked_port_is_let_go_of_when_it_is_released(real: Make) -> None:
    allocator = real(mode="os", cooldown_s=0)
    pair = allocator.lease(Holder("a-1", "/project"))
    allocator.release("a-1", "/project")
    assert local_kernel().is_free(pair.api_port)
    allocator.settle()
    assert allocator.leases() == ()


def test_picked_ports_are_counted_as_a_pool_of_the_kernels_range(real: Make) -> None:
    allocator = real(mode="os")
    allocator.lease(Holder("a-1", "/project"))
    for pool in allocator.status().pools:
        assert pool.leased == 1
        assert pool.available == pool.usable - 1


def test_a_pool_of_the_kernels_choice_does_not_grow(real: Make) -> None:
    with pytest.raises(RefusedError, match="kernel picks"):
        real(mode="os").expand(Role.API)


# ---------------------------------------------------------------------- pools of addresses


def pools(address: str, api: range, web: range) -> tuple[AddressPool, ...]:
    return (
        AddressPool("api", address, api.start, api.stop),
        AddressPool("web", address, web.start, web.stop),
    )


def test_a_pool_of_one_address_does_not_mind_what_others_listen_on(real: Make) -> None:
    with reserved_ports(4) as ports:
        declared = pools("127.0.0.2", ports[:2], ports[2:])
        allocator = real(address="127.0.0.2", pools=declared, auto_expand=False)
        with listen(ports[0], "127.0.0.3"):
            assert allocator.lease(Holder("a-1", "/p")).api_port == ports[0]
        with listen(ports[1], "127.0.0.2"), pytest.raises(PoolExhausted):
            allocator.lease(Holder("a-2", "/p"))


def test_a_port_number_has_one_owner_whatever_the_address(real: Make) -> None:
    with reserved_ports(4) as ports:
        declared = pools("127.0.0.2", ports[:2], ports[2:])
        one = real(address="127.0.0.2", pools=declared)
        other = real(api=small(ports[0], 2), web=small(ports[2], 2))
        first, second = one.lease(Holder("a-1", "/p")), other.lease(Holder("a-2", "/p"))
        assert first.api_port != second.api_port


def test_pools_of_addresses_are_told_beside_the_others(real: Make) -> None:
    with reserved_ports(4) as ports:
        declared = pools("127.0.0.2", ports[:2], ports[2:])
        status = real(pools=declared).get_status()
    assert [pool["address"] for pool in status["address_pools"]] == ["127.0.0.2"] * 2  # type: ignore[attr-defined]
    assert status["pools"]["api"]["total"] == 100  # type: ignore[index]


def test_an_address_without_pools_is_refused(real: Make) -> None:
    with pytest.raises(UsageError, match=r"no api pool for 10\.0\.0\.1"):
        real(address="10.0.0.1")


POOLS = """
[[pools]]
role = "api"
address = "127.0.0.2"
start = 7000
end = 7010
[[pools]]
role = "web"
address = "127.0.0.2"
start = 7100
end = 7110
"""


def test_pools_are_read_from_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "autocoder.toml").write_text(POOLS)
    settings = load_settings(
        tmp_path, environ={"AUTOCODER_PORTS_ADDRESS": "127.0.0.2"}, user_config=tmp_path / "none"
    )
    assert settings.ports.pools[0].range == PortRange(7000, 7010)
    assert settings.ports.address == "127.0.0.2"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"127.0.0.2"', '"here"', "must be an IP address"),
        ('role = "api"', 'role = "db"', "must be one of api, web"),
        ("start = 7000", "start = 7010", "no range of ports"),
        ("start = 7000", 'start = "many"', "must be a whole number"),
        ("start = 7100", "start = 7005", "overlaps"),
        ("start = 7000\nend = 7010", "start = 5000\nend = 5010", "overlaps"),
        ("end = 7010\n", "", "needs end"),
        ("end = 7010", "end = 7010\nsize = 3", "has no key 'size'"),
        (POOLS, "pools = 3", "must be tables"),
    ],
)
def test_a_bad_pool_is_refused_by_name(before: str, after: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "autocoder.toml").write_text(POOLS.replace(before, after, 1))
    with pytest.raises(UsageError, match=words) as refusal:
        load_settings(tmp_path, environ={}, user_config=tmp_path / "none")
    assert "autocoder.toml" in refusal.value.message


# ---------------------------------------------------------------------- outside holders


@pytest.fixture
def simulated(make: Make, kernel: SimulatedKernel) -> PortAllocator:
    kernel.run(300, "script")
    return make()


def state(allocator: PortAllocator) -> set[LeaseState]:
    return {lease.state for lease in allocator.leases()}


def test_a_lease_with_a_time_ends_by_itself(simulated: PortAllocator, clock: Clock) -> None:
    simulated.lease(Holder("script"), ttl_s=60)
    clock.advance(59)
    simulated.settle()
    assert state(simulated) == {LeaseState.LEASED}
    clock.advance(2)
    notices = simulated.settle()
    simulated.settle()
    assert state(simulated) == {LeaseState.COOLING}
    assert [n.text for n in notices] == ["the lease of script has ended: its time is over"]


def test_asking_again_renews_the_time(simulated: PortAllocator, clock: Clock) -> None:
    pair = simulated.lease(Holder("script"), ttl_s=60)
    clock.advance(50)
    assert simulated.lease(Holder("script"), ttl_s=60) == pair
    clock.advance(50)
    simulated.settle()
    assert state(simulated) == {LeaseState.LEASED}


def test_a_lease_without_process_and_time_stays(simulated: PortAllocator, clock: Clock) -> None:
    simulated.lease(Holder("script"))
    clock.advance(10**6)
    simulated.settle()
    assert state(simulated) == {LeaseState.LEASED}


@pytest.mark.parametrize("ttl_s", [0, -1, float("inf"), float("nan")])
def test_a_time_that_is_none_is_refused(ttl_s: float, simulated: PortAllocator) -> None:
    with pytest.raises(UsageError, match="cannot end after"):
        simulated.lease(Holder("script"), ttl_s=ttl_s)


def test_an_outside_holder_may_give_back_while_its_process_lives(
    simulated: PortAllocator,
) -> None:
    simulated.lease(Holder("script", pid=300))
    simulated.release("script", "")
    assert state(simulated) == {LeaseState.COOLING}
