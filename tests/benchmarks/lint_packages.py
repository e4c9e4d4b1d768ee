"""What the port lint finds in real packages: `lint_packages.py [npm:NAME | pypi:NAME ...]`.

Fetched by the registries' own clients into a folder that is removed again. Whether a
finding is true is for a reader to say. Of the 7 in these 22 packages as of late 2026 one
was false, a row of demonstration data.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autocoder.core.port_lint import lint_tree

PACKAGES = (
    *("npm:create-vite", "npm:express-generator", "npm:http-server", "npm:json-server"),
    *("npm:cra-template", "npm:create-next-app", "npm:create-t3-app", "npm:@nestjs/schematics"),
    *("npm:generator-jhipster", "npm:verdaccio", "npm:node-red", "npm:parse-server"),
    *("npm:webpack-dev-server", "pypi:flask", "pypi:datasette", "pypi:fastapi", "pypi:django"),
    *("pypi:streamlit", "pypi:jupyter-server", "pypi:mlflow-skinny", "pypi:locust", "pypi:dash"),
)


def main() -> None:
    for package in sys.argv[1:] or PACKAGES:
        with unpacked(package) as folder:
            files = sum(path.is_file() for path in folder.rglob("*"))
            found = list(lint_tree(folder))
            print(f"{package}: {len(found)} in {files} files", flush=True)  # noqa: T201
            for port in found:
                print(f"  {port.path}:{port.line}: {port.port} ({port.rule}): {port.text}")  # noqa: T201


@contextlib.contextmanager
def unpacked(package: str) -> Iterator[Path]:
    registry, _, name = package.partition(":")
    with tempfile.TemporaryDirectory() as made:
        folder, content = Path(made), Path(made, "content")
        if registry == "npm":
            command = ["npm", "pack", "--silent", "--pack-destination", made, name]
        else:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", made, name]
        subprocess.run(command, cwd=made, check=True, stdout=subprocess.DEVNULL)
        (archive,) = folder.iterdir()
        if archive.suffix == ".whl":
            shutil.unpack_archive(archive, content, "zip")
        else:
            shutil.unpack_archive(archive, content, "gztar", filter="data")
        yield content


if __name__ == "__main__":
    main()
