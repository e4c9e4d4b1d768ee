"""From a backlog to merged branches, everything included."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autocoder.core.composition import open_engine
from autocoder.core.settings import load_settings
from autocoder.core.store import FeatureDraft, ProjectStore
from support.figures import Figure, figure

FEATURES, AGENTS = 20, 5


def figures() -> Iterator[Figure]:
    for fence in ("neighbours", "off"):
        seconds = _run(fence)
        note = f"{FEATURES} instant features, {AGENTS} agents, merged; fence {fence}"
        yield figure(f"backlog throughput, fence {fence}", seconds, "s", at_most=5, note=note)


def _run(fence: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "plain")
        project.mkdir()
        (project / "README").write_text("a repository\n")
        identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.invalid")
        for command in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-qm", "Begin")):
            subprocess.run(["git", *identity, *command], cwd=project, check=True)
        store = ProjectStore(project / "agent_system.db")
        store.add_features([FeatureDraft(f"Feature {number}") for number in range(FEATURES)])
        store.close()
        settings = load_settings(
            project,
            environ=os.environ | {"AUTOCODER_LEDGER_URL": f"sqlite:///{folder}/ledger.db"},
            cli={
                "parallel": AGENTS,
                "fence": fence,
                "scripted.step_s": 0,
                "stop_when_done": True,
            },
        )
        report = open_engine(project, settings).run_to_report(lambda _: None)
    if report.features_done != FEATURES:
        sys.exit(f"only {report.features_done} of {FEATURES} features were done")
    return report.seconds
