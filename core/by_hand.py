"""What `autocoder worker` adds to a worker started by hand: the run description of its backend.

A worker alone can run the scripted backend only. What the others are told comes from
the project's settings and backlog, just as the orchestrator would have told them.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from autocoder.core import agent_worker
from autocoder.core.backends.choice import SCRIPTED
from autocoder.core.composition import existing_folder
from autocoder.core.errors import UsageError
from autocoder.core.launcher import run_folder
from autocoder.core.models import Feature, PortPair
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import local_kernel
from autocoder.core.run_description import describe_run
from autocoder.core.settings import database_path, ledger_path, load_settings
from autocoder.core.store import NewAgent, ProjectStore
from autocoder.core.worktrees import open_repository


def describe_by_hand(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Afterwards the run folder says what a worker with these arguments is to do.

    Nothing is leased and nothing claimed: whoever starts a worker by hand sees to that.

    Raises:
        SystemExit: the arguments are wrong, which stderr says.
        AutocoderError: project, settings, backend or prompt cannot be used.
    """
    args = agent_worker.Arguments(argv)
    project_dir = existing_folder(Path(args.project_dir))
    path = run_folder(project_dir, args.agent_id, args.part) / "run.json"
    if args.backend == SCRIPTED or path.exists():
        return
    iterations = any(word.startswith("--max-iterations") for word in argv)
    settings = load_settings(
        project_dir,
        environ=environ,
        cli={
            "backend": args.backend,
            "model": args.model or None,
            "yolo": args.yolo or None,
            "limits.iterations": args.max_iterations if iterations else None,
        },
    )
    repository = open_repository(project_dir, settings.base)
    allocator = PortAllocator(
        ledger_path(settings), settings.ports, ui_port=settings.ui.port, kernel=local_kernel()
    )
    with (
        contextlib.closing(allocator),
        contextlib.closing(ProjectStore(database_path(settings, project_dir))) as store,
    ):
        try:
            feature = store.feature(args.feature_id)
        except UsageError:
            feature = Feature(args.feature_id, f"Feature {args.feature_id}")
        run = describe_run(
            project_dir=project_dir,
            settings=settings,
            record=NewAgent(args.agent_id, args.api_port, args.web_port, 0, "", args.backend),
            feature=feature,
            pair=PortPair(args.api_port, args.web_port, 0),
            worktree=Path(args.worktree_path),
            base=repository.base,
            start_commit=repository.base_commit(),
            pools=allocator.status().pools,
        )
    agent_worker.write_json(str(path), run)
