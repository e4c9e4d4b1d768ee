"""The command line explains itself, and quickly."""

import subprocess
import sys

import pytest
import typer

from autocoder.core.cli import app
from support.commands import CLI, autocoder

COMMANDS = {
    *("parallel", "worker", "ports", "agents", "features", "doctor", "config", "serve"),
    *("mcp", "chat"),
}
SLOW = ("fastapi", "uvicorn", "sqlmodel", "sqlalchemy", "pydantic", "textual", "psutil", "mcp")


def test_every_command_of_the_table_is_there() -> None:
    said = autocoder("--help").out
    missing = {name for name in COMMANDS if f"\n  {name} " not in said}
    assert missing <= {"chat"}


@pytest.mark.parametrize(
    "command",
    [
        ("parallel",),
        ("serve",),
        ("agents", "list"),
        ("agents", "logs"),
        ("agents", "spawn"),
        ("ports", "status"),
        ("features", "import"),
    ],
)
def test_its_help_has_examples(command: tuple[str, ...]) -> None:
    ran = autocoder(*command, "--help")
    assert ran.code == 0
    assert "Examples:" in ran.out


def test_help_imports_nothing_that_is_slow() -> None:
    program = f"import sys, autocoder.core.cli; print([n for n in {SLOW!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_it(shell: str) -> None:
    variables = {"bash": "complete_bash", "zsh": "complete_zsh", "fish": "complete_fish"}
    done = subprocess.run(
        [*CLI[:1], "-c", "from autocoder.core.cli import app; app(prog_name='autocoder')"],
        env={
            "PATH": "/usr/bin:/bin",
            "_AUTOCODER_COMPLETE": variables[shell],
            "COMP_WORDS": "autocoder do",
            "COMP_CWORD": "1",
            "_TYPER_COMPLETE_ARGS": "autocoder do",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "doctor" in done.stdout


def test_every_command_shows_by_example_how_it_is_used() -> None:
    def without(command: object, path: str) -> list[str]:
        below = getattr(command, "commands", None)
        if below is None:
            # The worker prints its own help, as a program without libraries does.
            return [] if "Example" in getattr(command, "help", "") or path == " worker" else [path]
        return [each for name in below for each in without(below[name], f"{path} {name}")]

    assert without(typer.main.get_command(app), "") == []
