"""Turns a specification into features: one run of a backend, in a worktree of its own.

What the backend proposes is returned and not stored, so that a human sees it, and
what it has cost, first. Nothing of the run stays but its folder.
"""

import contextlib
import os
import select
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autocoder.core import lifecycle
from autocoder.core.backends.choice import uses_prompt
from autocoder.core.backlog import ImportReport, import_backlog
from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.events import Progress, last_progress
from autocoder.core.feature_choice import draft_check
from autocoder.core.launcher import LocalLauncher, WorkerProcess, WorkerSpec, run_folder
from autocoder.core.logs import log_path
from autocoder.core.models import Feature, Holder, PortPair
from autocoder.core.observer import last_logged
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel, local_kernel
from autocoder.core.run_description import describe_run
from autocoder.core.settings import Settings, database_path, ledger_path
from autocoder.core.store import NewAgent, ProjectStore
from autocoder.core.worktrees import Repository, open_repository

LARGEST_SPECIFICATION = 1 << 20
BACKLOG_FILE = "backlog.json"
LOOK_S = 0.3


@dataclass(frozen=True, slots=True)
class Proposal:
    """A backlog that nobody has agreed to yet."""

    file: Path
    """What `import_backlog` reads once somebody has."""
    report: ImportReport
    """Of a dry run: what would be added, and what is there already."""
    progress: Progress
    """What it took."""


def propose_backlog(
    project_dir: Path,
    settings: Settings,
    specification: Path,
    *,
    feature_count: int = 20,
    say: Callable[[str], None] = lambda _: None,
) -> Proposal:
    """Let the backend of the settings read the specification and write a backlog.

    `say` hears what it is doing, each line fit for a terminal. Takes minutes.

    Raises:
        UsageError: the specification or what was made of it cannot be read, or the
            backend cannot plan.
        PoolExhausted: no pair of ports is free.
        RefusedError: the backend failed.
        GitError: no worktree could be made.
    """
    text = _read(specification)
    if not uses_prompt(settings):
        raise UsageError(
            f"the {settings.backend} backend cannot plan", "Name one: --backend claude."
        )
    repository, kernel = open_repository(project_dir, settings.base), local_kernel()
    with (
        contextlib.closing(ProjectStore(database_path(settings, project_dir))) as store,
        contextlib.closing(
            PortAllocator(
                ledger_path(settings), settings.ports, ui_port=settings.ui.port, kernel=kernel
            )
        ) as allocator,
    ):
        plan = _new_plan(project_dir)
        with (
            _pair(allocator, kernel, plan, project_dir) as pair,
            _worktree(repository, plan) as worktree,
        ):
            run = describe_run(
                project_dir=project_dir,
                settings=settings,
                record=NewAgent(
                    plan, pair.api_port, pair.web_port, pair.epoch, _branch(plan), settings.backend
                ),
                feature=Feature(0, "Plan the backlog"),
                pair=pair,
                worktree=worktree,
                base=repository.base,
                start_commit=repository.base_commit(),
                pools=allocator.status().pools,
                template="initializer",
                more={
                    "project": project_dir.name,
                    "app_spec": text,
                    "backlog_file": str(worktree / BACKLOG_FILE),
                    "feature_count": feature_count,
                },
            )
            # With the feature tools it could add features nobody has agreed to.
            run |= {"mcp_servers": {}, "database": ""}
            launcher = LocalLauncher(project_dir, settings, kernel)
            _run(
                launcher,
                WorkerSpec(
                    agent_id=plan,
                    feature_id=0,
                    backend=settings.backend,
                    worktree=worktree,
                    pair=pair,
                    model=run["model"],
                    max_iterations=run["max_iterations"],
                    run=run,
                ),
                say,
                log_path(project_dir, plan),
            )
            file = _kept(worktree / BACKLOG_FILE, run_folder(project_dir, plan))
        check = draft_check(settings, repository.branches)
        report = import_backlog(store, file, check=check, dry_run=True)
    return Proposal(file, report, last_progress(run_folder(project_dir, plan)))


def _read(specification: Path) -> str:
    try:
        with specification.open("rb") as file:
            data = file.read(LARGEST_SPECIFICATION + 1)
    except OSError as error:
        raise UsageError(f"{specification}: {error.strerror}") from error
    if len(data) > LARGEST_SPECIFICATION:
        raise UsageError(f"{specification} is larger than 1 MiB")
    text = data.decode("utf-8", "replace").strip()
    if not text:
        raise UsageError(f"{specification} is empty", "Say in it what is to be built.")
    return text


def _new_plan(project_dir: Path) -> str:
    """A name no agent has; afterwards its run folder is there."""
    number = 1
    while True:
        try:
            run_folder(project_dir, f"plan-{number:04}").mkdir(parents=True, mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return f"plan-{number:04}"


@contextlib.contextmanager
def _pair(
    allocator: PortAllocator, kernel: Kernel, plan: str, project_dir: Path
) -> Iterator[PortPair]:
    pid = os.getpid()
    pair = allocator.lease(Holder(plan, str(project_dir), pid, kernel.start_ticks(pid)))
    try:
        yield pair
    finally:
        allocator.release(plan, str(project_dir), epoch=pair.epoch)


def _branch(plan: str) -> str:
    return f"plan/{plan}"


@contextlib.contextmanager
def _worktree(repository: Repository, plan: str) -> Iterator[Path]:
    branch = _branch(plan)
    path = repository.add(plan, branch, repository.base_commit())
    try:
        yield path
    finally:
        repository.remove(path, force=True)
        # Measured against itself, the branch holds nothing that would be lost.
        repository.on(branch).delete_branch(branch)


def _run(launcher: LocalLauncher, spec: WorkerSpec, say: Callable[[str], None], log: Path) -> None:
    """Raises `RefusedError` where the backend fails; nothing of it lives afterwards."""
    worker = launcher.start(spec)
    try:
        said = ""
        while not launcher.has_ended(worker):
            _wait(worker)
            if (line := last_logged(log)) != said:
                said = line
                say(line)
    finally:
        if not launcher.has_ended(worker):
            launcher.kill(worker)
            while not launcher.has_ended(worker):
                _wait(worker)
        facts = launcher.facts(spec.agent_id)
        if facts is None:
            launcher.end_leftovers(spec.agent_id, spec.worktree, worker)
        launcher.close(worker)
    if facts is None or facts.ending != "exited" or facts.exit_code != 0:
        ran_s = facts.ended_at - facts.started_at if facts else 0.0
        why = lifecycle.verdict(facts, ran_s=ran_s, commits=None).reason
        raise RefusedError(f"no backlog was planned: {why}", f"Its log: {log}")


def _wait(worker: WorkerProcess) -> None:
    poller = select.poll()
    if worker.pidfd is not None:
        poller.register(worker.pidfd, select.POLLIN)
    poller.poll(LOOK_S * 1000)


def _kept(written: Path, folder: Path) -> Path:
    if written.is_symlink() or not written.is_file():
        raise RefusedError(
            f"no backlog was planned: it has written no {BACKLOG_FILE}",
            f"Its log: {folder / 'log'}",
        )
    return Path(shutil.copyfile(written, folder / BACKLOG_FILE))
