"""Published packages with tests of their own, worked on by three agents at once.

`make test-agents` fetches them; they are not part of every commit's tests.
"""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from support.finish_line import assert_all_land

pytestmark = [pytest.mark.agents, pytest.mark.timeout(400)]

PYTEST = [sys.executable, "-m", "pytest", "-q"]
WHOLE_PY = """
from pathlib import Path

def test_features_are_whole():
    for path in Path().glob("feature-*"):
        assert path.read_text() == "whole\\n"
"""
WHOLE_JS = """
const test = require('tape');
const { readdirSync, readFileSync } = require('fs');
test('features are whole', (t) => {
  for (const name of readdirSync('.').filter((n) => n.startsWith('feature-')))
    t.equal(readFileSync(name, 'utf8'), 'whole\\n');
  t.end();
});
"""


def unpacked(archive: Path) -> dict[str, str]:
    """The files of a published package, by their path below its one folder."""
    with tarfile.open(archive) as packed:
        members = [(member, packed.extractfile(member)) for member in packed if member.isfile()]
        return {
            member.name.partition("/")[2]: file.read().decode() for member, file in members if file
        }


def test_six(tmp_path: Path, ports: range, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = ["pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "six==1.17.0"]
    subprocess.run([sys.executable, "-m", *fetch], cwd=tmp_path, check=True)
    files = unpacked(tmp_path / "six-1.17.0.tar.gz")
    files |= {"test_features.py": WHOLE_PY, ".gitignore": "__pycache__/\n.pytest_cache/\n"}
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    verify = f"[verify]\ncommands = [{json.dumps(' '.join(PYTEST))}]\n"

    assert_all_land(tmp_path, ports, files, PYTEST, more=verify)


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_minimist(tmp_path: Path, ports: range) -> None:
    subprocess.run(["npm", "pack", "--silent", "minimist@1.2.8"], cwd=tmp_path, check=True)
    files = unpacked(tmp_path / "minimist-1.2.8.tgz")
    package = json.loads(files["package.json"])
    package |= {"scripts": {"test": "tape 'test/*.js'"}, "devDependencies": {"tape": "^5.6.3"}}
    files |= {
        "package.json": json.dumps(package),
        "test/features.js": WHOLE_JS,
        ".gitignore": "node_modules/\npackage-lock.json\n",
    }
    install = "npm install --silent --no-audit --no-fund --ignore-scripts"
    verify = f'[verify]\ncommands = ["{install}", "npm test"]\n'

    assert_all_land(
        tmp_path, ports, files, ["sh", "-c", f"{install} && npm test --silent"], more=verify
    )
