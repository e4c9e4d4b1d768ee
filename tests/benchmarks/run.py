"""Every measurement, as a table and as JSON: `make bench`, or `run.py NAME ...` for some.

A benchmark is a module `bench_<name>.py` here with `figures()`, which yields
`support.figures.Figure`s. Machines are noisy, so a figure is a ratio taken in one
run wherever it can be, and nothing here fails a test.
"""

import argparse
import dataclasses
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.figures import Figure  # noqa: E402  # found by the line above


def main() -> None:
    known = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--json", type=Path, default=HERE.parents[1] / ".bench" / "figures.json")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - known.keys()
    if unknown:
        parser.error(f"there is no benchmark {min(unknown)!r}; known: {', '.join(known)}")
    taken: list[dict[str, object]] = []
    for name in arguments.names or known:
        print(f"\n{name}", flush=True)  # noqa: T201
        for found in measured(known[name]):
            print(line(found), flush=True)  # noqa: T201
            taken.append({"benchmark": name, **dataclasses.asdict(found)})
    arguments.json.parent.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "kernel": platform.release()}
    document = {"at": time.time(), "machine": machine, "figures": taken}
    arguments.json.write_text(json.dumps(document, indent=2), "utf-8")


def measured(path: Path) -> Iterator[Figure]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield from module.figures()


def line(found: Figure) -> str:
    mark = {True: "✓", False: "✗", None: " "}[found.met]
    return (
        f"  {mark} {found.what:<46} {found.value:>10.4g} {found.unit:<6} {found.target:<14}"
        f" load {found.load:>4.1f}  {found.note}"
    )


if __name__ == "__main__":
    main()
