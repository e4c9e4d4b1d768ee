"""`autocoder config`: every setting, its value, and who said so."""

from pathlib import Path
from typing import TYPE_CHECKING

from autocoder.core.cli.options import JsonOption, ProjectOption, opened
from autocoder.core.cli.output import guarded, print_json, print_table

if TYPE_CHECKING:
    from autocoder.core.settings import Settings


def config(project_dir: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Every setting with its value and its origin: option, variable, file or default.

    Strongest first: command line, environment, the project's autocoder.toml, the
    user's config.toml, default.

    \b
    Examples:
      autocoder config
      AUTOCODER_PRESET=cheap autocoder config --json | jq '.[] | select(.origin != "default")'
    """
    with guarded(as_json=as_json):
        entries = settings_json(opened(project_dir)[1])
        if as_json:
            print_json(entries)
        else:
            rows = [(e["name"], _spoken(e["value"]), e["origin"], e["meaning"]) for e in entries]
            print_table(("SETTING", "VALUE", "ORIGIN", "MEANING"), rows)


def settings_json(settings: "Settings") -> list[dict[str, object]]:
    """Every setting, by its dotted name, in the order the documentation has them."""
    from autocoder.core.settings import documented

    return [
        {
            "name": name,
            "value": _plain(_value(settings, name)),
            "origin": settings.origin(name),
            "variable": variable,
            "default": _plain(default),
            "meaning": meaning,
        }
        for name, variable, default, meaning in documented()
    ]


def _value(settings: object, name: str) -> object:
    for part in name.split("."):
        # `pass` is a keyword: its field is called `pass_`.
        settings = getattr(settings, part if hasattr(settings, part) else f"{part}_")
    return settings


def _plain(value: object) -> object:
    from autocoder.core.models import PortRange

    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return [value.start, value.end] if isinstance(value, PortRange) else value


def _spoken(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value not in ("", []) else "–"
