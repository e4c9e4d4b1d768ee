"""One frozen `Settings`, read once, from the strongest source that names a value.

Command line > environment > the project's `autocoder.toml` > the user's
`config.toml` > default. A value that cannot be read stops the start and names
the option, variable or file: nothing falls back silently.
"""

import ipaddress
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import platformdirs

from autocoder.core.errors import UsageError
from autocoder.core.models import PortRange
from autocoder.core.settings_values import (
    HIGHEST_PORT,
    LOWEST_PORT,
    as_number,
    convert,
    flatten,
    port_range,
    read_toml,
)

PROJECT_FILE = "autocoder.toml"


def option(
    default: Any,
    doc: str,
    *,
    env: str | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A documented field; `env` only where the variable is not `AUTOCODER_<PATH_OF_THE_FIELD>`."""
    metadata = {"doc": doc, "env": env, "low": low, "high": high, "choices": choices}
    if isinstance(default, Mapping):
        frozen = types.MappingProxyType(dict(default))
        return field(default_factory=lambda: frozen, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class AddressPool:
    """A range whose ports are leased for one address; one `[[pools]]` table."""

    role: str = option("", "which pool", choices=("api", "web"))
    address: str = option("", "IP address of this host that the ports are for")
    start: int = option(0, "first port", low=LOWEST_PORT, high=HIGHEST_PORT)
    end: int = option(0, "first port after the range", low=LOWEST_PORT, high=HIGHEST_PORT + 1)

    @property
    def range(self) -> PortRange:
        return PortRange(self.start, self.end)


@dataclass(frozen=True, slots=True)
class PortSettings:
    api: tuple[PortRange, ...] = option(
        (PortRange(5000, 5100),), "ranges of the api pool, end exclusive"
    )
    web: tuple[PortRange, ...] = option(
        (PortRange(5173, 5273),), "ranges of the web pool, end exclusive"
    )
    mode: str = option(
        "pool", "pool: lowest free port of the ranges; os: the kernel picks", choices=("pool", "os")
    )
    auto_expand: bool = option(True, "grow a pool by itself when 90 % of it is used")
    max_ports: int = option(1000, "no pool grows beyond this many ports", low=1, high=64000)
    cooldown_s: float = option(
        30.0,
        "how long a released port rests while others are free",
        env="AUTOCODER_PORT_COOLDOWN_S",
        low=0,
        high=3600,
    )
    skip_check: bool = option(
        False, "grant ports without asking the kernel first", env="AUTOCODER_SKIP_PORT_CHECK"
    )
    address: str = option("", "lease from the [[pools]] of this address; empty: from api and web")
    pools: tuple[AddressPool, ...] = option((), "pools of single addresses: [[pools]] tables")


@dataclass(frozen=True, slots=True)
class VerifySettings:
    commands: tuple[str, ...] = option((), "commands that must pass before a branch is merged")
    timeout_s: float = option(900.0, "limit for all of them together", low=1, high=86400)
    required: bool = option(
        False, "a branch that no command has tested is merged only when asked for"
    )


@dataclass(frozen=True, slots=True)
class LimitSettings:
    agent_minutes: float = option(
        120.0, "an agent is stopped after this long", low=0.01, high=10080
    )
    idle_minutes: float = option(
        15.0, "an agent is stopped after this long without output", low=0.01, high=10080
    )
    iterations: int = option(
        5, "how often claude is asked to finish what it ended without committing", low=1, high=100
    )
    turns: int = option(0, "claude's model turns for one prompt; 0: no limit", low=0, high=100000)
    budget_usd: float = option(
        0.0, "what claude may spend on one attempt; 0: no limit", low=0, high=100000
    )
    attempts: int = option(10, "failed attempts before a feature is blocked", low=1, high=1000)
    alike_failures: int = option(
        5, "no agent starts any more once this many in a row failed alike", low=2, high=1000
    )
    retry_s: float = option(
        10.0, "wait after the first failed attempt; doubles up to 600 s", low=0, high=600
    )
    log_mib: int = option(50, "an agent's log is rotated beyond this size", low=1, high=100000)
    min_free_mib: int = option(
        500, "no agent starts with less free disk or memory", low=0, high=10_000_000
    )
    stop_grace_s: float = option(
        5.0, "how long a stopped agent may take before it is killed", low=0, high=600
    )


@dataclass(frozen=True, slots=True)
class EnvSettings:
    # `pass` is a keyword, hence the underscore; the file says `pass`.
    pass_: tuple[str, ...] = option((), "variables handed to agents although dropped by default")
    drop: tuple[str, ...] = option((), "further variables withheld from agents")


@dataclass(frozen=True, slots=True)
class UiSettings:
    port: int = option(
        8888, "port of the panel's own server", env="AUTOCODER_UI_PORT", low=1024, high=65535
    )
    host: str = option("127.0.0.1", "address of the panel's own server", env="AUTOCODER_UI_HOST")
    allow_remote: bool = option(
        False, "let other hosts reach that address", env="AUTOCODER_UI_ALLOW_REMOTE"
    )


@dataclass(frozen=True, slots=True)
class ScriptedSettings:
    step_s: float = option(0.5, "pause between the steps of a scripted agent", low=0, high=3600)
    misbehave: bool = option(False, "let the features marked so misbehave on their first attempt")


@dataclass(frozen=True, slots=True)
class CommandBackend:
    """A program that can be an agent."""

    command: tuple[str, ...] = option((), "argument list with {placeholders}")
    parser: str = option(
        "text", "how its output is read", choices=("text", "claude", "codex", "opencode", "gemini")
    )


BACKENDS = ("scripted", "claude", "codex", "opencode", "gemini", "aider", "mini-swe-agent")
PRESET_VALUES: Mapping[str, Mapping[str, Any]] = {
    "quality": {"limits.iterations": 10, "verify.required": True},
    "balanced": {},
    "economy": {"limits.iterations": 3, "limits.attempts": 5, "limits.budget_usd": 5.0},
    "cheap": {
        "limits.iterations": 2,
        "limits.attempts": 3,
        "limits.agent_minutes": 45.0,
        "limits.budget_usd": 1.0,
    },
    "experimental": {"limits.iterations": 20, "limits.agent_minutes": 360.0},
}
"""What a preset says where no file, variable or option does; its model is the backend's choice."""

PRESETS = tuple(PRESET_VALUES)


@dataclass(frozen=True, slots=True)
class Settings:
    parallel: int = option(3, "agents that run at once", low=0, high=1000)
    backend: str = option("scripted", "the program that works on features")
    preset: str = option("balanced", "how much is spent on a feature", choices=PRESETS)
    model: str = option("", "model the backend uses; empty: the preset's")
    yolo: bool = option(False, "a shorter prompt, and no browser tests")
    base: str = option("", "branch that features start from and merge into; empty: the current one")
    backlog: str = option(
        "", "file of features that is read again whenever it changes, from the project's folder"
    )
    merge: str = option(
        "auto", "merge finished branches by itself or on request", choices=("auto", "manual")
    )
    fence: str = option(
        "neighbours",
        "which ports an agent is kept from binding",
        choices=("off", "neighbours", "strict"),
    )
    tick_s: float = option(0.5, "longest time between two looks at the kernel", low=0.05, high=60)
    stop_when_done: bool = option(False, "end the panel's orchestrator when nothing is left to do")
    database_url: str = option("", "sqlite:/// URL of the project database")
    ledger_url: str = option("", "sqlite:/// URL of the host ledger")
    ports: PortSettings = PortSettings()
    verify: VerifySettings = VerifySettings()
    limits: LimitSettings = LimitSettings()
    env: EnvSettings = EnvSettings()
    ui: UiSettings = UiSettings()
    scripted: ScriptedSettings = ScriptedSettings()
    backends: Mapping[str, CommandBackend] = option({}, "further programs, by name")
    origins: Mapping[str, str] = option(
        {}, "where each value that is not the default came from, by dotted name"
    )

    def origin(self, name: str) -> str:
        """Option, variable or file that set the dotted `name`, or "default"."""
        return self.origins.get(name, "default")


def state_dir() -> Path:
    """Where this host's user keeps what outlives projects: the ledger, tokens."""
    return Path(platformdirs.user_state_dir("autocoder", appauthor=False))


def user_file() -> Path:
    return Path(platformdirs.user_config_dir("autocoder", appauthor=False), "config.toml")


def ledger_path(settings: Settings) -> Path:
    return _sqlite_path(settings, "ledger_url") or state_dir() / "ledger.db"


def database_path(settings: Settings, project_dir: Path) -> Path:
    return _sqlite_path(settings, "database_url") or project_dir / "agent_system.db"


def load_settings(
    project_dir: Path,
    *,
    environ: Mapping[str, str],
    cli: Mapping[str, object] | None = None,
    user_config: Path | None = None,
) -> Settings:
    """Read all sources; `cli` maps dotted names to values, None meaning "not given".

    Raises:
        UsageError: a value is of the wrong type or out of range, a name is
            unknown, or a file cannot be read; the message says which and where.
    """
    values: dict[str, tuple[Any, str]] = {}
    for path in (user_config or user_file(), project_dir / PROJECT_FILE):
        for name, value in flatten(read_toml(path)).items():
            values["ports.pools" if name == "pools" else name] = (value, str(path))
    specs = dict(_specs(Settings))
    _refuse_unknown(values, specs)
    for name, spec in specs.items():
        variable = spec.metadata.get("env") or "AUTOCODER_" + name.upper().replace(".", "_")
        if environ.get(variable):
            values[name] = (environ[variable], f"${variable}")
    for name, value in (cli or {}).items():
        if value is not None:
            values[name] = (value, "--" + name.replace("_", "-"))
    preset, _ = values.get("preset", (Settings().preset, ""))
    for name, value in PRESET_VALUES.get(str(preset), {}).items():
        values.setdefault(name, (value, f"preset {preset}"))
    settings = _build(Settings, "", values)
    settings = _with_range_variables(settings, environ)
    origins = {name: where for name, (_, where) in values.items()}
    settings = replace(settings, origins=types.MappingProxyType({**settings.origins, **origins}))
    _check(settings)
    return settings


def verify_settings(text: str, where: str, otherwise: Settings) -> VerifySettings:
    """What the `[verify]` of an autocoder.toml says, given as text; the rest as in `otherwise`.

    Raises:
        UsageError: it cannot be read; the message begins with `where`.
    """
    try:
        table = tomllib.loads(text).get("verify", {})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: {error}", "Mend the file.") from error
    if not isinstance(table, dict):
        raise UsageError(f"{where}: verify must be a table: [verify]")
    named = {f"verify.{key}": (value, where) for key, value in table.items()}
    _refuse_unknown(named, dict(_specs(Settings)))
    values = {
        f"verify.{key}": (getattr(otherwise.verify, key), where)
        for key in ("commands", "timeout_s", "required")
    }
    built: VerifySettings = _build(VerifySettings, "verify.", values | named)
    return built


def documented() -> list[tuple[str, str, object, str]]:
    """Every setting as (dotted name, environment variable, default, meaning)."""
    return [
        (
            name,
            spec.metadata.get("env") or "AUTOCODER_" + name.upper().replace(".", "_"),
            spec.default,
            spec.metadata["doc"],
        )
        for name, spec in _specs(Settings)
    ]


def _specs(kind: Any, prefix: str = "") -> typing.Iterator[tuple[str, Any]]:
    hints = get_type_hints(kind)
    for spec in fields(kind):
        name = prefix + spec.name.rstrip("_")
        if is_dataclass(hints[spec.name]):
            yield from _specs(hints[spec.name], name + ".")
        elif spec.name not in ("origins", "backends", "pools"):
            yield name, spec


def _refuse_unknown(values: Mapping[str, tuple[Any, str]], specs: Mapping[str, Any]) -> None:
    for name, (_, where) in values.items():
        if name not in specs and name not in ("backends", "ports.pools"):
            close = [known for known in specs if known.split(".")[-1] == name.split(".")[-1]]
            hint = f"Did you mean {close[0]}?" if close else "`autocoder config` lists the names."
            raise UsageError(f"{where}: there is no setting {name!r}", hint)


def _build(kind: Any, prefix: str, values: Mapping[str, tuple[Any, str]]) -> Any:
    hints = get_type_hints(kind)
    chosen: dict[str, Any] = {}
    for spec in fields(kind):
        name, hint = prefix + spec.name.rstrip("_"), hints[spec.name]
        if is_dataclass(hint):
            chosen[spec.name] = _build(hint, name + ".", values)
        elif name == "backends" and name in values:
            chosen[spec.name] = _backends(*values[name])
        elif name == "ports.pools" and name in values:
            chosen[spec.name] = _address_pools(*values[name])
        elif name in values:
            value, where = values[name]
            chosen[spec.name] = convert(value, hint, spec.metadata, f"{where}: {name}")
    return kind(**chosen)


def _backends(table: Any, where: str) -> Mapping[str, CommandBackend]:
    if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()):
        raise UsageError(f"{where}: backends must be tables: [backends.NAME]")
    named = {}
    for name, entry in table.items():
        unknown = set(entry) - {"command", "parser"}
        if unknown:
            raise UsageError(f"{where}: backends.{name} has no key {min(unknown)!r}")
        flat = {f"backends.{name}.{key}": (value, where) for key, value in entry.items()}
        named[name] = _build(CommandBackend, f"backends.{name}.", flat)
        if not named[name].command:
            raise UsageError(f"{where}: backends.{name} needs a command = [...]")
    return types.MappingProxyType(named)


def _address_pools(tables: Any, where: str) -> tuple[AddressPool, ...]:
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise UsageError(f"{where}: pools must be tables: [[pools]]")
    pools = []
    for number, entry in enumerate(tables, 1):
        prefix = f"pools.{number}."
        keys = {spec.name for spec in fields(AddressPool)}
        if set(entry) != keys:
            wrong = min(set(entry) ^ keys)
            raise UsageError(
                f"{where}: [[pools]] number {number} "
                + (f"needs {wrong}" if wrong in keys else f"has no key {wrong!r}"),
                "Every one has role, address, start and end (exclusive).",
            )
        pool = _build(AddressPool, prefix, {prefix + key: (entry[key], where) for key in entry})
        try:
            ipaddress.ip_address(pool.address)
        except ValueError:
            raise UsageError(
                f"{where}: {prefix}address must be an IP address, not {pool.address!r}"
            ) from None
        port_range(pool.start, pool.end, f"{where}: {prefix}start and end")
        pools.append(pool)
    return tuple(pools)


def _with_range_variables(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Apply AUTOCODER_{API,WEB}_PORT_RANGE_{START,END}; one of the two alone moves that end.

    The seed's variables name one range, so they replace the first and drop the rest.
    """
    origins = dict(settings.origins)
    changed: dict[str, tuple[PortRange, ...]] = {}
    for role in ("api", "web"):
        first = getattr(settings.ports, role)[0]
        bounds = {"START": first.start, "END": first.end}
        given = []
        for side in bounds:
            variable = f"AUTOCODER_{role.upper()}_PORT_RANGE_{side}"
            if environ.get(variable):
                bounds[side] = int(as_number(environ[variable], int, f"${variable}"))
                given.append(f"${variable}")
        if given:
            where = " and ".join(given)
            changed[role] = (port_range(bounds["START"], bounds["END"], where),)
            origins[f"ports.{role}"] = where
    ports = replace(settings.ports, **changed)  # type: ignore[arg-type]  # roles are field names
    return replace(settings, ports=ports, origins=types.MappingProxyType(origins))


def _check(settings: Settings) -> None:
    """Refuse what is well-formed piece by piece but not together."""
    known = (*BACKENDS, *settings.backends)
    if settings.backend not in known:
        raise UsageError(
            f"{settings.origin('backend')}: there is no backend {settings.backend!r}",
            f"Known: {', '.join(known)}; or add [backends.{settings.backend}].",
        )
    declared = [
        (role, span, f"ports.{role}")
        for role in ("api", "web")
        for span in getattr(settings.ports, role)
    ]
    declared += [(pool.role, pool.range, "ports.pools") for pool in settings.ports.pools]
    for position, (role, span, name) in enumerate(declared):
        for other_role, other, _ in declared[:position]:
            if span.start < other.end and other.start < span.end:
                raise UsageError(
                    f"{settings.origin(name)}: {role} range {span} overlaps "
                    f"{other_role} range {other}",
                    "Every port belongs to one pool; move one of the ranges.",
                )
    given = {(pool.role, pool.address) for pool in settings.ports.pools}
    address = settings.ports.address
    if address and {("api", address), ("web", address)} - given:
        raise UsageError(
            f"{settings.origin('ports.address')}: ports.address is {address}, but [[pools]] "
            "declares no api and web pool for it",
        )
    for name in ("database_url", "ledger_url"):
        _sqlite_path(settings, name)


def _sqlite_path(settings: Settings, name: str) -> Path | None:
    """The file of an SQLite URL, None when the setting is empty."""
    url: str = getattr(settings, name)
    if not url:
        return None
    prefix = "sqlite:///"
    if not url.startswith(prefix) or not url[len(prefix) :]:
        raise UsageError(
            f"{settings.origin(name)}: {name} must look like sqlite:////path/file.db, not {url!r}"
        )
    return Path(url[len(prefix) :])
