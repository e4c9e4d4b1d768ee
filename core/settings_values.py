"""What a settings file or variable may hold, read from TOML and text into typed values.

Every refusal names where the value stands; nothing here knows which settings there are.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from autocoder.core.errors import UsageError
from autocoder.core.models import PortRange

LOWEST_PORT, HIGHEST_PORT = 1024, 65535
"""Ports a user's program may bind and browsers and tools accept as a number."""


MOST_BYTES = 1024 * 1024
"""Of a settings file: what is longer is none."""


def read_toml(path: Path) -> dict[str, Any]:
    """What the file says; empty where there is none. Raises `UsageError`, naming the file."""
    try:
        # A merged branch may have made it a link to what never ends, or never begins.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = os.read(descriptor, MOST_BYTES + 1) if plain else b""
        finally:
            os.close(descriptor)
        if not plain:
            raise UsageError(f"{path} is no plain file", "Move it away.")
        if len(content) > MOST_BYTES:
            raise UsageError(f"{path} is larger than 1 MiB", "Mend the file, or move it away.")
        return tomllib.loads(content.decode("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", "Mend the file, or move it away.") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "Make the file readable.") from error


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and prefix + key != "backends":
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def convert(value: Any, hint: Any, meta: Mapping[str, Any], where: str) -> Any:
    converted: Any
    if hint is bool:
        converted = as_bool(value, where)
    elif hint in (int, float):
        converted = as_number(value, hint, where)
        low, high = meta["low"], meta["high"]
        if (low is not None and converted < low) or (high is not None and converted > high):
            raise UsageError(f"{where} must be between {low:g} and {high:g}, not {value}")
    elif hint is str:
        if not isinstance(value, str):
            raise UsageError(f"{where} must be a text, not {value!r}")
        converted = value
        if meta["choices"] and value not in meta["choices"]:
            raise UsageError(f"{where} must be one of {', '.join(meta['choices'])}, not {value!r}")
    elif get_origin(hint) is tuple and get_args(hint)[0] is PortRange:
        converted = as_ranges(value, where)
    elif get_origin(hint) is tuple:
        parts = value.split() if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            raise UsageError(f"{where} must be a list of texts, not {value!r}")
        converted = tuple(parts)
    else:  # pragma: no cover - a field of a type this function does not know yet
        raise TypeError(hint)
    return converted


def as_bool(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("1", "true", "yes", "on"):
        return True
    if isinstance(value, str) and value.lower() in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"{where} must be true or false, not {value!r}")


def as_number(value: Any, kind: type, where: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError(value)
        number = float(value) if kind is float else int(value)
        if number != number or (kind is int and number != float(value)):
            raise ValueError(value)
    except (TypeError, ValueError, OverflowError):
        noun = "whole number" if kind is int else "number"
        raise UsageError(f"{where} must be a {noun}, not {value!r}") from None
    return number


def as_ranges(value: Any, where: str) -> tuple[PortRange, ...]:
    """Accept [[5000, 5100], ...], or "5000-5099,5200-5299" with both ends included."""
    if isinstance(value, str):
        try:
            pairs = [(int(a), int(b) + 1) for a, b in (p.split("-") for p in value.split(","))]
        except ValueError:
            raise UsageError(f"{where} must look like 5000-5099, not {value!r}") from None
    elif isinstance(value, list | tuple) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(port, int) and not isinstance(port, bool) for port in pair)
        for pair in value
    ):
        pairs = [(pair[0], pair[1]) for pair in value]
    else:
        raise UsageError(f"{where} must look like [[5000, 5100]] (end exclusive), not {value!r}")
    if not pairs:
        raise UsageError(f"{where} must name at least one range")
    return tuple(port_range(start, end, where) for start, end in pairs)


def port_range(start: int, end: int, where: str) -> PortRange:
    if not LOWEST_PORT <= start < end <= HIGHEST_PORT + 1:
        raise UsageError(
            f"{where}: {start} to {end} (end exclusive) is no range of ports between "
            f"{LOWEST_PORT} and {HIGHEST_PORT}"
        )
    return PortRange(start, end)
