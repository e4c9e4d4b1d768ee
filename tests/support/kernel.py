"""A kernel that tests set by hand: its ports, processes and boot."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from autocoder.core.probe import HostIdentity, ListeningSocket, Liveness, Process


@dataclass
class SimulatedKernel:
    identity: HostIdentity = field(default_factory=lambda: HostIdentity("host", "boot"))
    listening: dict[int, int] = field(default_factory=dict)
    """Port to the pid that listens."""
    bound: set[int] = field(default_factory=set)
    """Ports that are bound and do not listen."""
    lingering: set[int] = field(default_factory=set)
    alive: dict[int, int] = field(default_factory=dict)
    """Pid to start of each live process."""
    hidden: set[int] = field(default_factory=set)
    """Pids the kernel says nothing about."""
    commands: dict[int, tuple[str, ...]] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)

    def is_free(self, port: int, address: str = "") -> bool:
        return not (port in self.listening or port in self.bound or port in self.lingering)

    def is_lingering(self, port: int) -> bool:
        return port in self.lingering and port not in self.listening and port not in self.bound

    def hold_any(self) -> "SimulatedHold":
        port = next(port for port in range(40000, 61000) if self.is_free(port))
        self.bound.add(port)
        return SimulatedHold(self, port)

    def processes(self) -> Mapping[int, Process]:
        return {
            pid: Process(pid, self.parents.get(pid, 1), pid, start, 0, 0, "program", "S")
            for pid, start in self.alive.items()
        }

    def listening_sockets(self) -> frozenset[tuple[int, int]]:
        return frozenset(self.listening.items())

    def listeners(self) -> Mapping[int, tuple[ListeningSocket, ...]]:
        return {
            port: (ListeningSocket(port, "0.0.0.0", port, 0, pid, f"program {pid}"),)
            for port, pid in self.listening.items()
        }

    def start_ticks(self, pid: int) -> int | None:
        return self.alive.get(pid)

    def liveness(self, pid: int, start: int | None, boot_id: str) -> Liveness:
        if boot_id != self.identity.boot_id:
            return Liveness.DEAD
        if pid in self.hidden:
            return Liveness.UNKNOWN
        return Liveness.ALIVE if self.alive.get(pid) == start else Liveness.DEAD

    def command_line(self, pid: int) -> tuple[str, ...]:
        return self.commands.get(pid, ())

    def environment(self, pid: int) -> Mapping[str, str]:
        return {}

    def run(self, pid: int, *command: str, parent: int = 1) -> None:
        """Let a process live, newer than all before it."""
        self.alive[pid] = max(self.alive.values(), default=100) + 1
        self.commands[pid] = command
        self.parents[pid] = parent

    def end(self, pid: int) -> None:
        """End a process and free what it listened on."""
        del self.alive[pid]
        self.listening = {port: by for port, by in self.listening.items() if by != pid}


@dataclass
class SimulatedHold:
    kernel: SimulatedKernel
    port: int

    def close(self) -> None:
        self.kernel.bound.discard(self.port)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
