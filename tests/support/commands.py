"""The command line: in this process, which takes milliseconds, or as a process of its own."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from autocoder.core.cli import app

CLI = (sys.executable, "-m", "autocoder.core.cli")


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


def autocoder(*arguments: str | Path, environ: Mapping[str, str] | None = None) -> Ran:
    """Run `autocoder <arguments>` here; an exception that escapes it escapes this too."""
    ran = CliRunner().invoke(app, [*map(str, arguments)], env=environ, catch_exceptions=False)
    return Ran(ran.exit_code, ran.stdout, ran.stderr)


def autocoder_process(
    *arguments: str | Path,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    unprivileged: bool = False,
    seconds: float = 60.0,
) -> Ran:
    """Run `autocoder <arguments>` as a process without a terminal.

    An `unprivileged` one may, even as root, write only what file modes allow.
    """
    done = subprocess.run(
        [*CLI, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        preexec_fn=_heed_file_modes if unprivileged else None,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def _heed_file_modes() -> None:
    pr_capbset_drop, cap_dac_override = 24, 1
    ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0)
