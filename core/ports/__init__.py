"""Leases of TCP ports: one durable, host-wide ledger for every project and orchestrator."""

from autocoder.core.ports.allocator import PortAllocator
from autocoder.core.ports.findings import REMEDIES, Finding, Kind
from autocoder.core.ports.host import Listeners, with_listeners
from autocoder.core.ports.repair import RepairReport
from autocoder.core.ports.rules import BROWSER_BLOCKED, PortRules, host_rules
from autocoder.core.ports.workers import LiveWorker, live_workers

__all__ = [
    "BROWSER_BLOCKED",
    "REMEDIES",
    "Finding",
    "Kind",
    "Listeners",
    "LiveWorker",
    "PortAllocator",
    "PortRules",
    "RepairReport",
    "host_rules",
    "live_workers",
    "with_listeners",
]
