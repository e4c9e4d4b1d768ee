"""Makes the checkout importable as `autocoder.*` for editable installs.

The wheel maps `core` to `autocoder/core` by itself; an editable install needs a
folder of that shape on the path, so this hook links one together in `build/dev`.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DevLinks(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if version != "editable":
            return
        package = Path(self.root, "build", "dev", "autocoder")
        package.mkdir(parents=True, exist_ok=True)
        for folder in ("core", "tui", "prompts"):
            link = package / folder
            if not link.is_symlink():
                link.symlink_to(Path("..", "..", "..", folder), target_is_directory=True)
