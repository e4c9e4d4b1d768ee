"""How pools grow and shrink."""

from pathlib import Path

import pytest

from autocoder.core.errors import PoolExhausted, RefusedError, UsageError
from autocoder.core.models import (
    PortRange,
    Role,
)
from autocoder.core.ports import BROWSER_BLOCKED, host_rules
from support.ledgers import Make, agent, small, texts


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
