"""What is installed is what stands in the folders, whichever way it is installed."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("core", "tui", "prompts")


def sources() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    return {name for name in listed if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return out


def test_the_wheel_holds_every_file_of_the_folders_and_no_other(built: Path) -> None:
    # `build` makes the wheel from the sdist, so this covers both.
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert packed == {f"autocoder/{name}" for name in sources()}


def test_the_source_distribution_can_build_itself(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert {"pyproject.toml", "README.md", ".hatch_build.py"} <= names
    assert sources() <= names


def test_the_engine_never_loads_the_screen() -> None:
    program = (
        "import sys, autocoder.core.cli, autocoder.core.composition, autocoder.core.headless\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('textual', 'rich')"
        " or name.startswith('autocoder.tui')])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
