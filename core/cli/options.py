"""Options that several commands share, so that they are spelled and explained once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from autocoder.core.settings import Settings

ProjectOption = Annotated[
    Path, typer.Option("--project-dir", "-C", help="The project: a git repository.")
]
BackendOption = Annotated[
    str, typer.Option("--backend", "-b", help="The program that works on it, not the project's.")
]
ModelOption = Annotated[str, typer.Option("--model", help="The model that program uses.")]
BaseOption = Annotated[
    str, typer.Option("--base", help="The branch to start from and to merge into.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def opened(project_dir: Path) -> "tuple[Path, Settings]":
    """The project's folder, absolute, and the settings that hold there.

    Raises:
        UsageError: there is no such folder, or a setting is wrong.
    """
    # The database layer behind `composition` costs most of a second: not for --help.
    from autocoder.core.composition import existing_folder
    from autocoder.core.settings import load_settings

    folder = existing_folder(project_dir)
    return folder, load_settings(folder, environ=os.environ)
