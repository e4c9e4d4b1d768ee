"""The README says what is so."""

import re
from pathlib import Path

from make_readme import README, written

ROOT = Path(__file__).parents[2]


def test_its_tables_are_those_of_the_code() -> None:
    text = README.read_text("utf-8")

    assert written(text) == text, "run: python tests/make_readme.py"


def test_every_file_it_names_exists() -> None:
    text = README.read_text("utf-8")
    named = re.findall(r"`((?:core|tui|prompts|tests|screenshots)/[^`… ]+)`", text)
    named += re.findall(r"\]\(([^)h][^)]*)\)", text)

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_make_command_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", README.read_text("utf-8"), re.M))

    assert {name for name in named if f"\n{name}:" not in makefile} == set()
