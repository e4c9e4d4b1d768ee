"""What every command shares: documents and tables on stdout, refusals on stderr.

Tables may show what agents and other programs wrote, so every cell is sanitised.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

import typer

from autocoder.core.errors import AutocoderError
from autocoder.core.logs import sanitise


@contextlib.contextmanager
def guarded(*, as_json: bool = False) -> Iterator[None]:
    """Turn an `AutocoderError` into its message, hint and exit code; Ctrl-C into 130.

    With `as_json` the refusal is one JSON object on stderr.
    """
    try:
        yield
        sys.stdout.flush()
    except AutocoderError as error:
        refuse(error, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # Whoever read us has had enough; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def refuse(error: AutocoderError, *, as_json: bool) -> NoReturn:
    """Say why not, and end with the error's exit code."""
    if as_json:
        print_json(error.as_dict(), err=True)
    else:
        warn(error.message)
        if error.hint:
            typer.echo(f"  {sanitise(error.hint)}", err=True)
    raise typer.Exit(error.exit_code)


def warn(text: str) -> None:
    """One line on stderr."""
    typer.echo(f"autocoder: {sanitise(text)}", err=True)


def print_json(document: object, *, err: bool = False) -> None:
    """One document; escaped to ASCII, so that no text in it can steer a terminal."""
    typer.echo(json.dumps(document, indent=2), err=err)


def print_table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()
) -> None:
    """Columns as wide as their widest cell; those named in `right` are aligned there.

    None is an empty cell.
    """
    cells = [["" if cell is None else sanitise(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    aligned = [">" if header in set(right) else "<" for header in headers]
    for line in (list(headers), *cells):
        parts = [
            f"{cell:{side}{width}}" for cell, side, width in zip(line, aligned, widths, strict=True)
        ]
        typer.echo("  ".join(parts).rstrip())
