"""Programs in Linux namespaces of their own: another network, another /proc, a disk to fill."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_REFUSED = 77


def in_namespaces(flags: str, setup: str, code: str, *arguments: str) -> str:
    """What Python code prints, run after `setup`, lines of shell, in what `unshare FLAGS` makes.

    Skips the test, with the reason, where this host does not let us make that.
    """
    script = f'{{ {setup}\n}} >&2 || exit {_REFUSED}\nexec "$@"'
    tests = Path(__file__).parents[1]
    try:
        answer = subprocess.run(
            ["unshare", *flags.split(), "sh", "-ec", script, "sh", sys.executable, "-c", code,
             *arguments],
            env=os.environ | {"PYTHONPATH": str(tests)},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("there is no program `unshare` here")
    if answer.returncode == _REFUSED or answer.stderr.startswith("unshare:"):
        pytest.skip(f"no namespace here: {answer.stderr.strip().splitlines()[-1]}")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
