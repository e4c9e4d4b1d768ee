"""What differs between two readings of the settings, as a person would say it."""

from dataclasses import dataclass

from autocoder.core.models import PortRange
from autocoder.core.settings import Settings, documented


@dataclass(frozen=True, slots=True)
class SettingChange:
    name: str
    """Dotted."""
    before: str
    after: str


def changes(before: Settings, after: Settings) -> tuple[SettingChange, ...]:
    """Every setting whose value differs, wherever it came from."""
    found = [
        SettingChange(name, shown_setting(before, name), shown_setting(after, name))
        for name, _, _, _ in documented()
        if value_of(before, name) != value_of(after, name)
    ]
    if before.backends != after.backends:
        known, now = (", ".join(each.backends) or "none" for each in (before, after))
        found.append(SettingChange("backends", known, now))
    if before.ports.pools != after.ports.pools:
        found.append(
            SettingChange("pools", str(len(before.ports.pools)), str(len(after.ports.pools)))
        )
    return tuple(found)


def value_of(settings: Settings, name: str) -> object:
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part, None) if hasattr(value, part) else getattr(value, f"{part}_")
    return value


def shown_setting(settings: Settings, name: str) -> str:
    return shown_value(value_of(settings, name))


def shown_value(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(shown_value, value))
    if isinstance(value, PortRange):
        return f"[{value.start}, {value.end}]"  # as in the file, where the end is exclusive
    if isinstance(value, float):
        return f"{value:g}"
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    return str(value)
