"""Writes the tables of README.md from the code they describe."""

import re
from pathlib import Path

import typer

from autocoder.core.cli import app
from autocoder.core.models import PortRange
from autocoder.core.settings import documented
from autocoder.tui import keys

README = Path(__file__).parents[1] / "README.md"


def written(text: str) -> str:
    """`text` with its tables as they should be."""
    tables = {
        "commands": commands_table(),
        "keys": keys.as_markdown(),
        "settings": settings_table(),
    }
    for name, table in tables.items():
        marked = re.compile(f"<!-- {name} -->.*?<!-- /{name} -->", re.DOTALL)
        block = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
        text = marked.sub(block.replace("\\", r"\\"), text)
    return text


def commands_table() -> str:
    rows = ["| command | does |", "|---|---|"]
    group = typer.main.get_command(app)
    for name, command in getattr(group, "commands", {}).items():
        # A bar inside a cell is escaped, or it would begin the next one.
        verbs = " \\| ".join(getattr(command, "commands", {}))
        meaning = " ".join((command.help or "").partition("\n\n")[0].split())
        rows.append(f"| `{f'autocoder {name} {verbs}'.strip()}` | {meaning} |")
    return "\n".join(rows)


def settings_table() -> str:
    rows = ["| setting | environment | default | meaning |", "|---|---|---|---|"]
    for name, variable, default, meaning in documented():
        rows.append(f"| `{name}` | `{variable}` | {shown(default)} | {meaning} |")
    return "\n".join(rows)


def shown(default: object) -> str:
    if isinstance(default, tuple):
        parts = [str(part) for part in default if isinstance(part, PortRange)]
        return f"`{', '.join(parts)}`" if parts else "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`" if default else "–"


if __name__ == "__main__":
    README.write_text(written(README.read_text("utf-8")), "utf-8")
