"""The kernel's word on ports and holders, in the terms of the ledger's rows."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.models import Holder, Lease
from autocoder.core.ports.ledger import LeaseRow
from autocoder.core.ports.transitions import Sight, Use
from autocoder.core.probe import Kernel, ListeningSocket, Liveness, Process

Listeners = Mapping[int, Sequence[ListeningSocket]]


class Host:
    """Asks `kernel`; with `skip_check` every port is taken for free."""

    def __init__(self, kernel: Kernel, *, skip_check: bool) -> None:
        self.kernel = kernel
        self._skip_check = skip_check

    def is_free(self, port: int, address: str) -> bool:
        return self._skip_check or self.kernel.is_free(port, address)

    def look(self, port: int, address: str, listeners: Listeners | None) -> Sight:
        """How a port is used; by whom only where `listeners` are given."""
        if self.is_free(port, address):
            return Sight(Use.FREE)
        found = listener(port, address, listeners or {})
        if found is None and self.kernel.is_lingering(port):
            return Sight(Use.LINGERING)
        return Sight(Use.TAKEN, found)

    def liveness(self, row: LeaseRow, table: Mapping[int, Process] | None = None) -> Liveness:
        """Of the process that bounds the lease; unknown where none does.

        `table` saves the question for the many that are in it.
        """
        if row.pid is None:
            return Liveness.UNKNOWN
        seen = table.get(row.pid) if table else None
        here = row.boot_id == self.kernel.identity.boot_id
        if seen and here and seen.start == row.pid_start and seen.state not in "ZX":
            return Liveness.ALIVE
        return self.kernel.liveness(row.pid, row.pid_start, row.boot_id)

    def holder_gone(self, row: LeaseRow) -> bool:
        """Whether nothing but a bound port can still be of a holder that let go."""
        # An outside holder's word counts, and so does ours for a worker we never started.
        if not row.project or row.pid is None or row.pid == os.getpid():
            return True
        return self.liveness(row) is Liveness.DEAD

    def checked(self, holder: Holder) -> Holder:
        """The holder with the start of its process.

        Raises:
            UsageError: its name is none.
            RefusedError: there is no such process.
        """
        if not holder.name or not holder.name.isprintable() or len(holder.name) > 200:
            raise UsageError(
                f"{holder.name!r} cannot be the name of a holder",
                "A holder has a printable name of 1 to 200 characters.",
            )
        if holder.pid is None or holder.pid_start is not None:
            return holder
        start = self.kernel.start_ticks(holder.pid)
        if start is None:
            raise RefusedError(
                f"{holder.name} cannot hold ports: there is no process {holder.pid}",
                "Name the process that will use them, or none.",
            )
        return replace(holder, pid_start=start)

    def columns(self, holder: Holder) -> dict[str, Any]:
        """What a row says of its holder."""
        return {
            "holder": holder.name,
            "project": holder.project,
            "pid": holder.pid,
            "pid_start": holder.pid_start,
            "boot_id": self.kernel.identity.boot_id,
        }


def listener(port: int, address: str, listeners: Listeners) -> ListeningSocket | None:
    """Who listens on a port, on that very address first."""
    found = listeners.get(port, ())
    exact = [listening for listening in found if address in ("", listening.address)]
    return next(iter(exact or found), None)


def with_listener(lease: Lease, listeners: Listeners) -> Lease:
    """The lease with who listens on its port now."""
    found = listener(lease.port, "", listeners)
    if found is None:
        return replace(lease, listener_pid=None, listener="") if lease.listener else lease
    return replace(lease, listener_pid=found.pid, listener=found.command)


def with_listeners(leases: Iterable[Lease], listeners: Listeners) -> tuple[Lease, ...]:
    """The leases with who listens on their ports now."""
    return tuple(with_listener(lease, listeners) for lease in leases)
