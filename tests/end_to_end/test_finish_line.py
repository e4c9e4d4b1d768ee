"""From a backlog to a tested base: real projects, real test runners, three agents at once."""

import shutil
import sys
from pathlib import Path

import pytest

from support.finish_line import assert_all_land

NODE = {
    "package.json": '{"name": "sums", "type": "module", "scripts": {"test": "node --test"}}\n',
    "index.js": "export const add = (a, b) => a + b;\n",
    "index.test.js": (
        "import { test } from 'node:test';\nimport assert from 'node:assert';\n"
        "import { readdirSync, readFileSync } from 'node:fs';\n"
        "import { add } from './index.js';\n"
        "test('adds', () => assert.equal(add(1, 2), 3));\n"
        "test('features are whole', () => {\n"
        "  for (const name of readdirSync('.').filter((n) => n.startsWith('feature-')))\n"
        "    assert.equal(readFileSync(name, 'utf8'), 'whole\\n');\n"
        "});\n"
    ),
}
PYTHON = {
    "pyproject.toml": "[project]\nname = 'sums'\nversion = '1'\n[tool.pytest.ini_options]\n",
    ".gitignore": "__pycache__/\n.pytest_cache/\n",
    "sums.py": "def add(a, b):\n    return a + b\n",
    "test_sums.py": (
        "from pathlib import Path\nfrom sums import add\n\n"
        "def test_adds():\n    assert add(1, 2) == 3\n\n"
        "def test_features_are_whole():\n"
        "    for path in Path().glob('feature-*'):\n"
        "        assert path.read_text() == 'whole\\n'\n"
    ),
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("files", "command"),
    [
        pytest.param(
            NODE,
            ["node", "--test"],
            marks=pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed"),
            id="node",
        ),
        pytest.param(PYTHON, [sys.executable, "-m", "pytest", "-q"], id="python"),
    ],
)
def test_all_features_land_tested_beside_a_dirty_checkout(
    tmp_path: Path,
    ports: range,
    files: dict[str, str],
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Detection asks python3 for pytest; here that is the one the tests run on.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    # The many plugins of the tests' own environment take seconds to load.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    assert_all_land(tmp_path, ports, files, command)
