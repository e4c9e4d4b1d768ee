"""The API against its own description: whatever is sent, it answers as described.

Requests come from the OpenAPI document, fitting and unfitting ones; what they may
not break is looked up in /proc and the database files by an oracle of the tests' own.
"""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from autocoder.core.control import TcpWay
from support import oracle
from support.projects import COMMITS, Project, Running
from support.waiting import wait_until

TOKEN = "t" * 43
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
STREAMS = ("/api/snapshots", "/api/agents/{agent_id}/log")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_breaks_the_description_or_what_is_always_true(
    tmp_path: Path, ports: range, mode: GenerationMode
) -> None:
    _fuzz(tmp_path, ports, mode, examples=5)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_of_many_breaks_them(tmp_path: Path, ports: range, mode: GenerationMode) -> None:
    asked = _fuzz(tmp_path, ports, mode, examples=300)
    sys.stdout.write(f"{asked} requests ({mode.value}), all answered as described\n")


def _fuzz(folder: Path, ports: range, mode: GenerationMode, *, examples: int) -> int:
    project = Project(folder, ports[:-1], COMMITS)
    way = TcpWay("127.0.0.1", ports[-1], TOKEN)
    run = Running(project.open_served(way, parallel=0))
    run.wait_for(lambda _: True)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    asked = 0
    try:
        schema = schemathesis.openapi.from_url(
            f"http://127.0.0.1:{ports[-1]}/openapi.json", headers=headers
        )
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
        assert len(operations) >= 15
        for operation in operations:

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal asked
                if case.path in STREAMS:
                    # One that goes on until its reader leaves would never be answered.
                    case.query = {**(case.query or {}), "follow": "false"}
                case.headers = {
                    name: value
                    for name, value in (case.headers or {}).items()
                    if name.lower() not in ("authorization", "host", "content-length")
                }
                response = case.call(headers=headers, timeout=30)
                case.validate_response(response, checks=CHECKS)
                asked += 1

            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with no parameters
                ask()
            _always_true(project, folder / "ledger.db")
        run.wait_for(lambda s: not any(agent.live for agent in s.agents), 120)
        _always_true(project, folder / "ledger.db")
        wait_until(lambda: _all_held_by_the_living(folder / "ledger.db"), seconds=15)
        assert run.failure is None
    finally:
        run.stop()
    return asked


def _always_true(project: Project, ledger: Path) -> None:
    oracle.assert_no_port_has_two_holders(ledger, [project.database])
    oracle.assert_pairs_are_whole(ledger)
    oracle.assert_the_seeds_checks_hold(project.database)


def _all_held_by_the_living(ledger: Path) -> bool:
    try:
        oracle.assert_leases_have_live_holders(ledger, time.time())
    except AssertionError:
        return False
    return True
