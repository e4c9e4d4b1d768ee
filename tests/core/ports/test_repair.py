"""What is found wrong, and what is mended."""

import pytest

from autocoder.core.models import Holder, LeaseState
from autocoder.core.ports import (
    Kind,
    LiveWorker,
    PortAllocator,
    RepairReport,
)
from autocoder.core.ports.repair import AGAIN
from autocoder.core.ports.workers import WorkerSearch
from autocoder.core.probe import HostView
from support.kernel import Clock, SimulatedKernel
from support.ledgers import Make

PROJECT = "/project"


def run_worker(kernel: SimulatedKernel, pid: int, agent_id: str, api: int, web: int) -> None:
    kernel.run(
        pid, "python", "-I", "-S", "/x/agent_worker.py", "--project-dir", PROJECT,
        "--agent-id", agent_id, "--api-port", str(api), "--web-port", str(web),
    )  # fmt: skip


def spawn(allocator: PortAllocator, kernel: SimulatedKernel, pid: int, agent_id: str) -> int:
    """Lease, run and confirm, as an orchestrator does; the API port."""
    pair = allocator.lease(Holder(agent_id, PROJECT, 100))
    run_worker(kernel, pid, agent_id, pair.api_port, pair.web_port)
    allocator.confirm(Holder(agent_id, PROJECT, pid), pair.epoch)
    return pair.api_port


def sight(allocator: PortAllocator, clock: Clock, times: int = 3) -> RepairReport:
    """Look that many times, a second apart; what the last look brought."""
    for _ in range(times):
        clock.advance(1)
        report = allocator.repair()
    return report


def kinds(allocator: PortAllocator) -> set[tuple[Kind, int, str]]:
    return {(found.kind, found.port, found.agent_id) for found in allocator.check()}


def test_a_sound_host_has_no_findings(allocator: PortAllocator, kernel: SimulatedKernel) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.run(201, "vite", parent=200)
    kernel.listening = {5000: 200, 5173: 201}
    assert allocator.check() == ()


def test_the_ports_of_a_dead_worker_are_a_leak_given_back_after_three_sightings(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.end(200)
    assert kinds(allocator) == {(Kind.LEAK, 5000, "a-1"), (Kind.LEAK, 5173, "a-1")}
    sight(allocator, clock, 2)
    assert {lease.state for lease in allocator.leases()} == {LeaseState.LEASED}
    sight(allocator, clock, 1)
    allocator.settle()
    assert {lease.state for lease in allocator.leases()} == {LeaseState.COOLING}


def test_sightings_count_only_a_second_apart(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.end(200)
    for _ in range(50):
        allocator.repair()
    assert {lease.state for lease in allocator.leases()} == {LeaseState.LEASED}


def test_a_worker_whose_life_is_unknown_is_no_leak(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.end(200)
    kernel.hidden.add(200)
    sight(allocator, clock, 10)
    assert {lease.state for lease in allocator.leases()} == {LeaseState.LEASED}


def test_a_worker_that_outlived_the_orchestrator_before_it_confirmed_keeps_its_lease(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    pair = allocator.lease(Holder("a-1", PROJECT, 100))
    run_worker(kernel, 200, "a-1", pair.api_port, pair.web_port)
    kernel.end(100)
    sight(allocator, clock)
    leases = allocator.leases()
    assert {(lease.state, lease.pid) for lease in leases} == {(LeaseState.LEASED, 200)}
    assert {lease.epoch for lease in leases} == {pair.epoch}
    assert allocator.check() == ()


def test_a_live_agent_without_a_lease_gets_it_back(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    run_worker(kernel, 201, "a-2", 5001, 5174)
    kernel.bound |= {5001, 5174}
    assert (Kind.MISMATCH, 5001, "a-2") in kinds(allocator)
    sight(allocator, clock)
    assert {lease.holder for lease in allocator.leases() if lease.port in (5001, 5174)} == {"a-2"}
    assert allocator.check() == ()


def test_an_agent_gets_its_quarantined_ports_back(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    run_worker(kernel, 201, "a-2", 5001, 5174)
    kernel.bound |= {5001, 5174}
    allocator.lease(Holder("a-3", PROJECT, 100))
    sight(allocator, clock)
    held = {lease.port: lease.holder for lease in allocator.leases()}
    assert (held[5001], held[5174], held[5002]) == ("a-2", "a-2", "a-3")


def test_what_a_project_knows_of_its_agents_counts_before_any_lease_names_it(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    run_worker(kernel, 200, "a-1", 5000, 5173)
    assert allocator.check() == ()
    agent = LiveWorker("a-1", PROJECT, 200, kernel.alive[200], 5000, 5173, epoch=7)
    for _ in range(3):
        clock.advance(1)
        allocator.repair([agent])
    assert {(lease.holder, lease.epoch) for lease in allocator.leases()} == {("a-1", 7)}


def test_of_two_agents_with_one_port_the_newer_is_to_be_stopped(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    run_worker(kernel, 201, "a-2", 5000, 5180)
    before = [lease for lease in allocator.leases() if lease.holder == "a-1"]
    assert (Kind.DUPLICATE, 5000, "a-2") in kinds(allocator)
    report = sight(allocator, clock)
    assert [worker.agent_id for worker in report.stop] == ["a-2"]
    assert [lease for lease in allocator.leases() if lease.holder == "a-1"] == before
    assert "has port 5000 already" in report.why_stop(report.stop[0])
    assert allocator.settle() == ()


def test_agents_that_began_at_once_are_told_apart_by_pid(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    run_worker(kernel, 199, "a-2", 5000, 5173)
    kernel.alive[199] = kernel.alive[200]
    report = sight(allocator, clock)
    assert [worker.pid for worker in report.stop] == [200]


def test_a_foreign_program_on_a_leased_port_is_named(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.run(666, "other")
    kernel.listening[5000] = 666
    (found,) = allocator.check()
    assert (found.kind, found.port, found.agent_id, found.pid) == (
        Kind.FOREIGN_LISTENER, 5000, "a-1", 666
    )  # fmt: skip
    assert "pid 666 program 666" in found.detail


def test_an_agent_on_its_neighbours_port_is_named_at_the_first_look(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    spawn(allocator, kernel, 201, "a-2")
    kernel.run(300, "vite", parent=201)
    kernel.listening[5000] = 300
    assert {(Kind.ROGUE_BIND, 5000, "a-2"), (Kind.FOREIGN_LISTENER, 5000, "a-1")} == kinds(
        allocator
    )
    sight(allocator, clock, 1)
    assert any("a-2" in n.text and "which is a-1's" in n.text for n in allocator.settle())


def test_a_check_compares_what_its_caller_has_seen(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.listening[5050] = 200
    view = HostView.of(kernel)
    kernel.listening.clear()
    clock.advance(1)
    assert [found.port for found in allocator.repair(view=view).findings] == [5050]
    clock.advance(1)
    assert not allocator.repair().findings


def test_a_check_sees_what_another_program_has_written_since_the_last(
    allocator: PortAllocator, kernel: SimulatedKernel, make: Make
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    assert allocator.check() == ()
    make().lease(Holder("a-2", PROJECT, 100))
    kernel.listening[5001] = 200
    assert (Kind.FOREIGN_LISTENER, 5001, "a-2") in kinds(allocator)


def test_a_pid_that_another_process_has_got_is_asked_again_what_it_runs(
    kernel: SimulatedKernel,
) -> None:
    search = WorkerSearch(kernel)
    run_worker(kernel, 200, "a-1", 5000, 5173)
    table = kernel.processes()
    assert [worker.agent_id for worker in search.among(table)] == ["a-1"]
    run_worker(kernel, 200, "a-2", 5001, 5174)
    assert [worker.agent_id for worker in search.among(table)] == ["a-1"]
    assert [worker.agent_id for worker in search.among(kernel.processes())] == ["a-2"]
    kernel.end(200)
    assert search.among(kernel.processes()) == ()


def test_of_another_projects_agents_nothing_is_said_as_if_they_were_ones_own(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.listening[5050] = 200
    clock.advance(1)
    allocator.repair(told_to="/another")
    assert allocator.settle() == ()
    kernel.listening[5051] = kernel.listening.pop(5050)
    clock.advance(1)
    allocator.repair(told_to=PROJECT)
    assert [notice.subject for notice in allocator.settle()] == ["a-1"]


def test_what_stays_wrong_is_told_once(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.listening[5050] = 200
    sight(allocator, clock, AGAIN + 1)
    assert [notice.subject for notice in allocator.settle()] == ["a-1"]


def test_an_agent_on_a_port_of_another_project_is_told_whose_it_is(
    allocator: PortAllocator, kernel: SimulatedKernel
) -> None:
    pair = allocator.lease(Holder("a-2", "/home/dev/shop", 100))
    spawn(allocator, kernel, 200, "a-1")
    kernel.listening[pair.api_port] = 200
    details = {found.kind: found.detail for found in allocator.check()}
    assert details[Kind.ROGUE_BIND].endswith("listens on 5000, which is a-2 of shop's")


def test_an_agent_on_a_port_that_nobody_leased_is_named_too(
    allocator: PortAllocator, kernel: SimulatedKernel
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.listening = {5050: 200, 9999: 200}
    assert kinds(allocator) == {(Kind.ROGUE_BIND, 5050, "a-1")}


def test_a_stopping_agent_does_not_get_back_what_was_released(
    allocator: PortAllocator, kernel: SimulatedKernel, clock: Clock
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    allocator.release("a-1", PROJECT)
    sight(allocator, clock, 5)
    assert {lease.state for lease in allocator.leases()} == {LeaseState.RELEASING}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--agent-id", "a-9"),
        ("--agent-id", "a-9", "--api-port", "x", "--web-port", "5174"),
        ("--agent-id", "a-9", "--api-port", "5001", "--web-port", "٥١٧٤"),
        ("--agent-id", "", "--api-port", "5001", "--web-port", "5174"),
        (),
    ],
)
def test_a_process_that_only_resembles_a_worker_is_none(
    arguments: tuple[str, ...], allocator: PortAllocator, kernel: SimulatedKernel
) -> None:
    spawn(allocator, kernel, 200, "a-1")
    kernel.run(201, "python", "agent_worker.py", "--project-dir", PROJECT, *arguments)
    assert allocator.check() == ()
