"""`autocoder ports`: the ledger without a panel."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocoder.core.cli.output import guarded, print_json, print_table, warn
from autocoder.core.errors import DatabaseError, RefusedError, UsageError
from autocoder.core.logs import sanitise
from autocoder.core.models import Holder, LeaseState, PortRange, Role
from autocoder.core.settings import ledger_path, load_settings
from autocoder.core.shapes import lease_json

if TYPE_CHECKING:
    from autocoder.core.ports import Finding, PortAllocator

ports_app = typer.Typer(
    help="The ledger: which ports of this host are whose.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ProjectOption = Annotated[
    Path, typer.Option("--project-dir", "-C", help="Project whose settings count.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
PoolArgument = Annotated[Role, typer.Argument(help="api or web.", metavar="POOL")]
AddressOption = Annotated[
    str | None, typer.Option(help="The pool of that address, where [[pools]] declares one.")
]

DEFAULT_TTL_S = 3600.0
_PORT = re.compile("[0-9]{1,5}")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@ports_app.command()
def status(project_dir: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Both pools and every port that is not simply available.

    \b
    Examples:
      autocoder ports status
      autocoder ports status --json | jq .pools.api.available
    """
    with guarded(as_json=as_json), _allocator(project_dir) as allocator:
        leases = allocator.leases()
        if as_json:
            print_json(allocator.get_status() | {"leases": list(map(lease_json, leases))})
            return
        counts = ("total", "usable", "leased", "cooling", "quarantined", "available")
        print_table(
            ("pool", "ranges", *counts, "capacity"),
            [
                (
                    f"{pool.role} {pool.address}".strip(),
                    ", ".join(map(str, pool.ranges)),
                    *(getattr(pool, count) for count in counts),
                    f"{pool.capacity_percent}%",
                )
                for pool in allocator.status().pools
            ],
            right=(*counts, "capacity"),
        )
        typer.echo()
        if not leases:
            typer.echo("No port is leased. `autocoder ports lease NAME` leases a pair.")
            return
        now = time.time()
        print_table(
            ("port", "role", "state", "holder", "listener", "since", "epoch"),
            [
                (
                    lease.port,
                    lease.role,
                    lease.state,
                    " ".join(filter(None, (lease.holder, Path(lease.project).name))),
                    f"{lease.listener_pid or ''} {lease.listener}".strip(),
                    _age(now - lease.changed_at),
                    lease.epoch or None,
                )
                for lease in leases
            ],
            right=("port", "since", "epoch"),
        )


@ports_app.command()
def lease(
    holder: Annotated[str, typer.Argument(help="A name of your choice.", metavar="HOLDER")],
    pid: Annotated[
        int | None, typer.Option(help="The lease ends with this process.", min=1)
    ] = None,
    ttl: Annotated[
        str | None, typer.Option(help="The lease ends after this long: 90s, 10m, 2h, 1d.")
    ] = None,
    address: AddressOption = None,
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Lease a pair for a program that is no agent; prints it as shell assignments.

    The same holder gets the same pair again. The lease ends with --pid, after --ttl,
    or after an hour where neither is given; `autocoder ports release` ends it at once.
    Not in mode "os": ports that the kernel picks are nobody's once this command has ended.

    \b
    Examples:
      eval "$(autocoder ports lease my-server --pid $$)"
      autocoder ports lease nightly --ttl 2h --json
    """
    with guarded(as_json=as_json), _allocator(project_dir, address) as allocator:
        if allocator.kernel_picks:
            raise RefusedError(
                "in mode os the kernel would give the ports to other programs as soon as this "
                "command has ended",
                "Lease from a pool (AUTOCODER_PORTS_MODE=pool), or let the program listen on "
                "port 0 and ask which port it got.",
            )
        ttl_s = _seconds(ttl) if ttl is not None else None
        if pid is None and ttl_s is None:
            ttl_s = DEFAULT_TTL_S
        pair = allocator.lease(Holder(holder, pid=pid), ttl_s=ttl_s)
        if as_json:
            print_json(
                {
                    "holder": holder,
                    "api_port": pair.api_port,
                    "web_port": pair.web_port,
                    "epoch": pair.epoch,
                }
            )
        else:
            typer.echo(f"export AUTOCODER_API_PORT={pair.api_port}")
            typer.echo(f"export AUTOCODER_WEB_PORT={pair.web_port}")


@ports_app.command()
def release(
    holder: Annotated[str, typer.Argument(help="Whose pair, or a port.", metavar="HOLDER|PORT")],
    epoch: Annotated[int | None, typer.Option(help="Only the lease of this epoch.")] = None,
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Give a pair back. Nothing is killed; the ports rest until nothing uses them.

    An agent's pair is given back only once its worker has ended. A port that was kept out
    because another program used it is available again once it is free.

    \b
    Examples:
      autocoder ports release my-server
      autocoder ports release a-0f31
      autocoder ports release 5003
    """
    with guarded(as_json=as_json), _allocator(project_dir) as allocator:
        held = [
            lease
            for lease in allocator.leases()
            if lease.holder == holder and lease.state is LeaseState.LEASED
        ]
        if held:
            _release_pair(allocator, holder, {lease.project for lease in held}, epoch)
            ports = tuple(lease.port for lease in held)
        elif _PORT.fullmatch(holder):
            ports = allocator.release_port(int(holder))
        else:
            raise RefusedError(f"{holder} holds no ports", "`autocoder ports status` lists them.")
        if as_json:
            print_json({"holder": holder, "released": ports})
        else:
            typer.echo(f"{holder} gave back {' and '.join(map(str, ports))}")


def _release_pair(
    allocator: "PortAllocator", holder: str, projects: set[str], epoch: int | None
) -> None:
    if len(projects) > 1:
        raise RefusedError(
            f"{holder} is the name of {len(projects)} holders: "
            + ", ".join(project or "a script" for project in sorted(projects)),
            "Stop the agent in its own project.",
        )
    (project,) = projects
    if project and allocator.holder_lives(holder, project):
        raise RefusedError(
            f"{holder} is an agent of {project} that lives",
            f"Stop it: `autocoder agents stop {holder}`.",
        )
    allocator.release(holder, project, epoch=epoch)


@ports_app.command()
def probe(
    port: Annotated[int, typer.Argument(help="A port of a pool.", min=1, max=65535)],
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Look now whether a port that is kept out is free, instead of when it is due.

    \b
    Examples:
      autocoder ports probe 5003
    """
    with guarded(as_json=as_json), _allocator(project_dir) as allocator:
        found = allocator.probe_port(port)
        if as_json:
            print_json({"port": port, "lease": lease_json(found) if found else None})
        elif found is None:
            typer.echo(f"nobody has port {port}")
        else:
            listener = f"{found.listener_pid or ''} {found.listener}".strip()
            held = " ".join(filter(None, (found.state, found.holder)))
            typer.echo(f"port {port} is {held}" + (f", used by {listener}" if listener else ""))


@ports_app.command()
def expand(
    pool: PoolArgument,
    amount: Annotated[
        str | None,
        typer.Argument(help="How many ports, or START-END (both included).", metavar="[N|RANGE]"),
    ] = None,
    address: AddressOption = None,
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Grow a pool, for good and for every project of this host; agents may run meanwhile.

    Without an amount: the next block free of conflicts, as large as the pool's first range.

    \b
    Examples:
      autocoder ports expand api
      autocoder ports expand web 20
      autocoder ports expand api 7000-7049
    """
    with guarded(as_json=as_json), _allocator(project_dir, address) as allocator:
        added = allocator.expand(pool, _amount(amount))
        if as_json:
            print_json({"pool": pool.value, "added": [added.start, added.end]})
        else:
            typer.echo(f"pool {pool} extended by {added} ({len(added)} ports)")


@ports_app.command()
def shrink(
    pool: PoolArgument,
    span: Annotated[
        str | None, typer.Argument(help="START-END (both included).", metavar="[RANGE]")
    ] = None,
    address: AddressOption = None,
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take back a range that a pool was extended by; never one with a held port in it.

    \b
    Examples:
      autocoder ports shrink api
      autocoder ports shrink api 7000-7049
    """
    with guarded(as_json=as_json), _allocator(project_dir, address) as allocator:
        gone = allocator.shrink(pool, None if span is None else _range(span))
        if as_json:
            print_json({"pool": pool.value, "removed": [gone.start, gone.end]})
        else:
            typer.echo(f"pool {pool} lost {gone} ({len(gone)} ports)")


@ports_app.command()
def check(project_dir: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Compare ledger, live agents and sockets; exit 1 if anything is not as it should be.

    Finds duplicates, leaks, foreign listeners, agents on ports that are not theirs, and
    agents without a lease. Changes nothing.

    \b
    Examples:
      autocoder ports check
      autocoder ports check --json | jq '.findings[].detail'
    """
    with guarded(as_json=as_json), _allocator(project_dir) as allocator:
        findings = allocator.check()
        _print_findings(findings, as_json=as_json)
    raise typer.Exit(1 if findings else 0)


@ports_app.command()
def repair(project_dir: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Mend what `check` finds, after looking three times a second apart.

    Gives back the ports of dead holders and gives live agents their lost leases. Ends no
    process: of two agents with one port it names the newer. Exit 1 if something is left.

    \b
    Examples:
      autocoder ports repair
    """
    with guarded(as_json=as_json), _allocator(project_dir) as allocator:
        stop: dict[str, int] = {}
        for _ in range(4):
            stop |= {worker.agent_id: worker.pid for worker in allocator.repair().stop}
            _say(allocator)
            if not allocator.check():
                break
            time.sleep(1.05)
        for agent_id, pid in stop.items():
            warn(f"{agent_id} (pid {pid}) shares a port with an older agent; stop it")
        findings = allocator.check()
        _print_findings(findings, as_json=as_json)
    raise typer.Exit(1 if findings else 0)


@ports_app.command()
def lint(
    path: Annotated[Path, typer.Argument(help="A folder or file.", metavar="[PATH]")] = Path(),
    diff: Annotated[
        str | None, typer.Option(help="Only lines that are not in this commit.", metavar="BASE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find hard-coded ports in servers, URLs, flags, Docker files and scripts; exit 1 if any.

    A port beside a variable (`process.env.PORT || 3000`) is fine; comments and prose do not
    count.

    \b
    Examples:
      autocoder ports lint
      autocoder ports lint web/ --json
      autocoder ports lint --diff main
    """
    with guarded(as_json=as_json):
        from autocoder.core.port_lint import lint_diff, lint_tree

        found = list(lint_tree(path) if diff is None else lint_diff(path, diff))
        if as_json:
            print_json({"ok": not found, "findings": [port.as_dict() for port in found]})
        else:
            for port in found:
                typer.echo(
                    sanitise(f"{port.path}:{port.line}: {port.port} ({port.rule}): {port.text}")
                )
            if found:
                typer.echo("Take the port from $AUTOCODER_API_PORT or $AUTOCODER_WEB_PORT.")
            else:
                typer.echo("ok: no hard-coded port")
    raise typer.Exit(1 if found else 0)


@contextmanager
def _allocator(project_dir: Path, address: str | None = None) -> Iterator["PortAllocator"]:
    """The host's ledger under the project's settings, with what it has to say on stderr."""
    # SQL costs most of a second: not for --help.
    from autocoder.core.ports import PortAllocator
    from autocoder.core.probe import local_kernel

    if not project_dir.is_dir():
        raise UsageError(f"{project_dir} is not a folder", "Name a project's folder with -C.")
    settings = load_settings(project_dir, environ=os.environ, cli={"ports.address": address})
    allocator = PortAllocator(
        ledger_path(settings), settings.ports, ui_port=settings.ui.port, kernel=local_kernel()
    )
    try:
        _say(allocator)
        yield allocator
        _say(allocator)
    finally:
        allocator.close()


def _say(allocator: "PortAllocator") -> None:
    """What happened by itself. A ledger that can only be read is still worth reading."""
    try:
        for notice in allocator.settle():
            warn(notice.text)
    except DatabaseError as error:
        if error.cause not in ("unwritable", "full", "busy"):
            raise
        warn(error.message)


def _print_findings(findings: tuple["Finding", ...], *, as_json: bool) -> None:
    if as_json:
        found = [finding.as_dict() for finding in findings]
        print_json({"ok": not findings, "findings": found})
    elif not findings:
        typer.echo("ok: ledger, agents and sockets agree")
    else:
        print_table(
            ("port", "kind", "agent", "pid", "detail"),
            [(f.port, f.kind, f.agent_id, f.pid, f.detail) for f in findings],
            right=("port", "pid"),
        )


def _amount(text: str | None) -> int | PortRange | None:
    if text is None:
        return None
    return int(text) if re.fullmatch(r"-?[0-9]{1,6}", text) else _range(text)


def _range(text: str) -> PortRange:
    found = re.fullmatch(r"([0-9]{1,6})-([0-9]{1,6})", text)
    if found is None:
        raise UsageError(
            f"{text!r} is neither a number of ports nor a range",
            "Like 20, or 7000-7049 (both included).",
        )
    return PortRange(int(found[1]), int(found[2]) + 1)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd]?)", text)
    if found is None:
        raise UsageError(f"--ttl {text!r} is no time", "Like 90s, 10m, 2h or 1d.")
    return float(found[1]) * _UNITS[found[2] or "s"]


def _age(seconds: float) -> str:
    """At most four characters: 42s, 17m, 5h, 12d."""
    for unit, size in reversed(_UNITS.items()):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"
