"""Random lives of a ledger, on a simulated kernel and on this host's."""

import pytest
from hypothesis import settings

from support.ledger_machine import LIVES, LedgerMachine, RealKernelMachine

TestSimulated = pytest.mark.timeout(300)(LedgerMachine.TestCase)
TestSimulated.settings = settings(LIVES, max_examples=15, stateful_step_count=30)
TestReal = pytest.mark.timeout(300)(RealKernelMachine.TestCase)
TestReal.settings = settings(LIVES, max_examples=8, stateful_step_count=30)
