"""Fills the Markdown templates that tell agents what to do.

A file of the same name in the project's `.autocoder/prompts/` stands in for ours,
and is read anew each time, so an edit counts from the next agent on. Values go in
once and are never looked through for marks: what a feature says cannot reach others.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import autocoder.prompts
from autocoder.core.errors import UsageError

TEMPLATES = ("coding", "coding_yolo", "initializer", "assistant", "app_spec")
OVERRIDES = Path(".autocoder", "prompts")
SHIPPED = Path(autocoder.prompts.__path__[0])

_MARK = re.compile(r"\{\{([#/>]?)([a-z][a-z0-9_]*)\}\}(\n?)")


def render_prompt(name: str, values: Mapping[str, object], project_dir: Path) -> str:
    """The text of template `name` for these values.

    `{{key}}` becomes the value; what stands between `{{#key}}` and `{{/key}}` stays
    only where the value is not empty; `{{>ports}}` is the template of that name.

    Raises:
        UsageError: a mark names no value, or sections do not match, with file and
            line; or a template cannot be read.
    """
    return _fill(name, values, project_dir, ())


def _fill(
    name: str, values: Mapping[str, object], project_dir: Path, within: tuple[str, ...]
) -> str:
    path, text = _read(name, project_dir)
    filled: list[str] = []
    sections: list[tuple[str, str]] = []
    end = 0

    def shown() -> bool:
        return all(str(values[key]) for key, _ in sections)

    for mark in _MARK.finditer(text):
        if shown():
            filled.append(text[end : mark.start()])
        end = mark.end()
        kind, key, newline = mark.groups()
        where = f"{path}:{text.count(chr(10), 0, mark.start()) + 1}"
        if kind == ">":
            if key in (*within, name):
                raise UsageError(f"{where}: {{{{>{key}}}}} includes itself")
            part = _fill(key, values, project_dir, (*within, name))
            if shown():
                filled.append(part)
            continue
        if key not in values:
            known = ", ".join(sorted(values))
            raise UsageError(f"{where}: there is no value {key!r} here", f"Known: {known}.")
        if kind == "#":
            sections.append((key, where))
        elif kind == "/":
            if not sections or sections.pop()[0] != key:
                raise UsageError(f"{where}: {{{{/{key}}}}} ends no section that is open")
        elif shown():
            filled.append(str(values[key]) + newline)
    if sections:
        key, where = sections[-1]
        raise UsageError(f"{where}: {{{{#{key}}}}} is never ended")
    return "".join([*filled, text[end:]])


def _read(name: str, project_dir: Path) -> tuple[Path, str]:
    """The template that counts, and where it came from."""
    for path in (project_dir / OVERRIDES / f"{name}.md", SHIPPED / f"{name}.md"):
        try:
            return path, path.read_text("utf-8")
        except FileNotFoundError:
            continue
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8: {error.reason}", "Save it as UTF-8.") from error
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", "Make the file readable.") from error
    raise UsageError(f"there is no prompt {name!r}", f"Known: {', '.join(TEMPLATES)}.")
