"""Which ports of a host may ever be leased, whatever the ledger says."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autocoder.core.models import PortRange
from autocoder.core.settings_values import HIGHEST_PORT, LOWEST_PORT

BROWSER_BLOCKED = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670)}
    | {6679, 6697, 10080}
)
"""The "bad ports" of the WHATWG Fetch standard: a page served there is never shown."""


@dataclass(frozen=True, slots=True)
class PortRules:
    never: frozenset[int]
    """Never leased, though a range may contain them."""
    ephemeral: PortRange
    """What the kernel hands out by itself; no range may overlap it."""

    def usable(self, ranges: Iterable[PortRange]) -> int:
        """How many ports of these ranges can ever be leased."""
        spans = tuple(ranges)
        barred = sum(1 for port in self.never if any(port in span for span in spans))
        return sum(map(len, spans)) - barred


def host_rules(ui_port: int) -> PortRules:
    """The rules of this host now, `ui_port` being the panel's own."""
    folder = Path("/proc/sys/net/ipv4")
    try:
        low, high = (folder / "ip_local_port_range").read_text("ascii").split()
        reserved = (folder / "ip_local_reserved_ports").read_text("ascii").strip()
    except OSError:
        low, high, reserved = "49152", "65535", ""  # IANA's range, as BSD and macOS use it
    never = BROWSER_BLOCKED | {ui_port}
    for part in filter(None, reserved.split(",")):
        first, _, last = part.partition("-")
        never |= set(range(int(first), int(last or first) + 1))
    return PortRules(never, PortRange(int(low), int(high) + 1))


def overlaps(one: PortRange, other: PortRange) -> bool:
    return one.start < other.end and other.start < one.end


def total(ranges: Iterable[PortRange]) -> int:
    return sum(map(len, ranges))


def next_block(
    size: int, after: int, taken: Collection[PortRange], rules: PortRules
) -> PortRange | None:
    """The next `size` consecutive leasable ports that overlap nothing; None when there are none.

    Upwards from `after` first, then from the lowest port a user may bind.
    """
    walls = sorted([*taken, rules.ephemeral, *(PortRange(p, p + 1) for p in rules.never)], key=_end)
    for lowest in (after, LOWEST_PORT):
        start = lowest
        for wall in walls:
            if wall.start < start + size and start < wall.end:
                start = wall.end
        if start + size <= HIGHEST_PORT + 1:
            return PortRange(start, start + size)
    return None


def _end(span: PortRange) -> int:
    return span.end


def free_runs(spans: Iterable[PortRange], rules: PortRules) -> Iterator[PortRange]:
    """The same ports with those that are never leased cut out, lowest first."""
    for span in sorted(spans, key=_end):
        start = span.start
        for barred in sorted(port for port in rules.never if port in span):
            if start < barred:
                yield PortRange(start, barred)
            start = barred + 1
        if start < span.end:
            yield PortRange(start, span.end)
