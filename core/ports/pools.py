"""The pools: what settings declare, and what the ledger has grown them by since.

Declared ranges are this process's own; growth is shared by every project of the
host, and where the two contradict each other the declaration wins.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.models import Lease, LeaseState, PoolStatus, PortRange, Role, Severity
from autocoder.core.ports.ledger import Connection, Ledger
from autocoder.core.ports.rules import PortRules, next_block, overlaps, total
from autocoder.core.ports.saying import Saying
from autocoder.core.settings import PortSettings
from autocoder.core.settings_values import HIGHEST_PORT, LOWEST_PORT

EXPAND_AT_PERCENT = 90
HELD = (LeaseState.LEASED, LeaseState.RELEASING)


@dataclass(frozen=True, slots=True)
class PoolName:
    role: Role
    address: str = ""
    """The one address its ports are for; empty: all of the host's."""

    def __str__(self) -> str:
        return f"{self.role} on {self.address}" if self.address else str(self.role)


class Pools:
    """The ranges of every pool, and how they grow and shrink.

    Raises:
        UsageError: a declared range overlaps the kernel's ephemeral ports.
    """

    def __init__(
        self,
        settings: PortSettings,
        rules: PortRules,
        *,
        saying: Saying,
        now: Callable[[], float],
    ) -> None:
        self.rules = rules
        self._settings = settings
        self._saying = saying
        self._now = now
        self._crossed: set[PoolName] = set()
        self.declared: dict[PoolName, tuple[PortRange, ...]] = {}
        self.kernel_picks = settings.mode == "os"
        if self.kernel_picks:
            self.declared = {PoolName(role): (rules.ephemeral,) for role in Role}
            return
        self.declared = {PoolName(Role.API): settings.api, PoolName(Role.WEB): settings.web}
        for pool in settings.pools:
            name = PoolName(Role(pool.role), pool.address)
            self.declared[name] = (*self.declared.get(name, ()), pool.range)
        for name, spans in self.declared.items():
            for span in spans:
                self._refuse_ephemeral(name, span)
        for role in Role:
            if PoolName(role, settings.address) not in self.declared:
                raise UsageError(f"[[pools]] declares no {role} pool for {settings.address}")

    def ranges(self, ledger: Ledger, connection: Connection) -> dict[PoolName, list[PortRange]]:
        """Every pool's ranges now, lowest first; growth that overlaps a declaration is left out."""
        pools = {name: list(spans) for name, spans in self.declared.items()}
        for row in ledger.growth(connection):
            name, span = PoolName(Role(row.role), row.address), row.span
            if name in pools and self._contradiction(span) is None:
                pools[name].append(span)
        for spans in pools.values():
            spans.sort(key=lambda span: span.start)
        return pools

    def ignored(self, ledger: Ledger, connection: Connection) -> list[str]:
        """A sentence for each range of the ledger that this process's settings contradict."""
        sentences = []
        for row in ledger.growth(connection):
            span = row.span
            home = self.declared.get(PoolName(Role(row.role), row.address), ())
            covered = any(span.start in own and span.end - 1 in own for own in home)
            if not covered and (why := self._contradiction(span)) is not None:
                sentences.append(
                    f"The ledger's {row.role} range {span} overlaps {why}, which settings declare; "
                    "it is not used here. `autocoder ports shrink` removes it."
                )
        return sentences

    def expand(
        self,
        ledger: Ledger,
        connection: Connection,
        name: PoolName,
        amount: int | PortRange | None,
        reason: str,
    ) -> PortRange:
        """Add a range to a pool; durable with the transaction.

        Raises:
            RefusedError: no such range is to be had; the message says why.
            UsageError: the range or the count is no such thing.
        """
        if self.kernel_picks:
            raise RefusedError(
                "pools do not grow where the kernel picks the ports",
                'Set ports.mode = "pool" to use pools.',
            )
        pools = self.ranges(ledger, connection)
        if name not in pools:
            raise UsageError(f"there is no pool {name}", f"Known: {', '.join(map(str, pools))}.")
        grown = [row.span for row in ledger.growth(connection)]
        taken = [*(span for spans in self.declared.values() for span in spans), *grown]
        room = self._settings.max_ports - total(pools[name])
        if isinstance(amount, PortRange):
            self._check_range(amount, taken)
            span = amount
        else:
            size = min(len(self.declared[name][0]), room) if amount is None else amount
            if amount is not None and amount < 1:
                raise UsageError(f"a pool cannot be extended by {amount} ports")
            block = next_block(max(size, 1), pools[name][-1].end, taken, self.rules)
            if block is None:
                raise RefusedError(
                    f"pool {name} cannot be extended: no {size} consecutive ports are left",
                    "Name a smaller number, or a range: `autocoder ports expand api 7000-7019`.",
                )
            span = block
        if len(span) > room:
            raise RefusedError(
                f"pool {name} has {total(pools[name])} ports, {len(span)} more would pass the "
                f"limit of {self._settings.max_ports}",
                "Raise ports.max_ports ($AUTOCODER_PORTS_MAX_PORTS).",
            )
        ledger.add_range(connection, span, name.role, name.address, self._now(), reason)
        return span

    def shrink(
        self, ledger: Ledger, connection: Connection, name: PoolName, span: PortRange | None
    ) -> PortRange:
        """Take a range that the pool was grown by away again, the youngest by default.

        Raises:
            RefusedError: one of its ports is held; nothing has changed.
            UsageError: the pool was not grown by that range.
        """
        rows = [
            row
            for row in ledger.growth(connection)
            if (row.role, row.address) == (name.role, name.address)
            and (span is None or (row.start, row.end) == (span.start, span.end))
        ]
        if not rows:
            what = f"by {span}" if span else "by any range"
            raise UsageError(
                f"pool {name} was not extended {what}",
                "What settings declare is changed there: ports.api and ports.web.",
            )
        gone = rows[-1].span
        inside = [row for row in ledger.all_rows(connection) if row.port in gone]
        held = [row for row in inside if row.state in HELD]
        if held:
            raise RefusedError(
                f"pool {name} cannot lose {gone}: {held[0].holder} holds {held[0].port}"
                + (f", and {len(held) - 1} more are held" if len(held) > 1 else ""),
                "Stop these agents first.",
            )
        for row in inside:
            ledger.remove(connection, row)
        ledger.remove_range(connection, gone.start)
        return gone

    def nearly_used_up(self, ledger: Ledger, connection: Connection) -> list[PoolName]:
        """Pools that have just passed the mark; each once until it falls below it again."""
        if self.kernel_picks or not self._settings.auto_expand:
            return []
        pools = self.ranges(ledger, connection)
        above = {
            name
            for name, spans in pools.items()
            if self._percent(ledger, connection, spans) >= EXPAND_AT_PERCENT
        }
        fresh = above - self._crossed
        self._crossed = above
        return sorted(fresh, key=str)

    def grow(
        self, ledger: Ledger, connection: Connection, name: PoolName, spans: list[PortRange]
    ) -> PortRange | None:
        """Expand a pool that is nearly used up; None when it is not, or no more.

        Raises:
            RefusedError: it cannot be expanded.
        """
        percent = self._percent(ledger, connection, spans)
        if percent < EXPAND_AT_PERCENT:
            return None  # another process was faster
        reason = f"Port pool {name} at {percent}% capacity"
        span = self.expand(ledger, connection, name, None, reason)
        self._saying.say(
            Severity.INFO, f"pool {name}", f"{reason}, expanded range {span.start}-{span.end}"
        )
        return span

    def count(
        self, name: PoolName, spans: Iterable[PortRange], leases: Iterable[Lease]
    ) -> PoolStatus:
        """What the rows of the ledger leave of a pool."""
        ranges = tuple(spans)
        counts = dict.fromkeys(LeaseState, 0)
        for lease in leases:
            elsewhere = self.kernel_picks and lease.role is not name.role
            if lease.port in self.rules.never or elsewhere:
                continue
            if any(lease.port in span for span in ranges):
                counts[lease.state] += 1
        usable = self.rules.usable(ranges)
        return PoolStatus(
            role=name.role,
            address=name.address,
            ranges=ranges,
            total=total(ranges),
            usable=usable,
            leased=counts[LeaseState.LEASED] + counts[LeaseState.RELEASING],
            cooling=counts[LeaseState.COOLING],
            quarantined=counts[LeaseState.QUARANTINED],
            available=usable - sum(counts.values()),
        )

    def _percent(self, ledger: Ledger, connection: Connection, spans: Iterable[PortRange]) -> int:
        """How much of these ranges cannot be granted at once."""
        spans = tuple(spans)
        usable = self.rules.usable(spans)
        return 100 * ledger.count_rows(connection, spans) // usable if usable else 0

    def _check_range(self, span: PortRange, taken: list[PortRange]) -> None:
        if not LOWEST_PORT <= span.start < span.end <= HIGHEST_PORT + 1:
            raise UsageError(
                f"{span} is no range of ports between {LOWEST_PORT} and {HIGHEST_PORT}"
            )
        for other in taken:
            if overlaps(span, other):
                raise RefusedError(f"{span} overlaps {other}, which a pool has already")
        self._refuse_ephemeral(None, span)
        barred = sorted(port for port in self.rules.never if port in span)
        if barred:
            raise RefusedError(
                f"{span} contains {', '.join(map(str, barred[:5]))}: browsers refuse it, or this "
                "host reserves it",
                "Leave such ports out of the range.",
            )

    def _refuse_ephemeral(self, name: PoolName | None, span: PortRange) -> None:
        if overlaps(span, self.rules.ephemeral):
            subject = f"ports.{name.role}: {span}" if name else str(span)
            raise UsageError(
                f"{subject} overlaps {self.rules.ephemeral}, which the kernel hands out by itself",
                "Choose a range outside net.ipv4.ip_local_port_range.",
            )

    def _contradiction(self, span: PortRange) -> str | None:
        if overlaps(span, self.rules.ephemeral):
            return f"the ephemeral range {self.rules.ephemeral}"
        for name, spans in self.declared.items():
            for declared in spans:
                if overlaps(span, declared):
                    return f"{declared} of pool {name}"
        return None
