"""Where an orchestrator is put together, for every front end alike."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from autocoder.core.answers import LocalAnswers
from autocoder.core.attached import Attached
from autocoder.core.backends.choice import check_backend
from autocoder.core.backlog import import_backlog
from autocoder.core.control import Controlled, ControlServer, TcpWay, tcp_way, token_file
from autocoder.core.demo import BASE as DEMO_BASE
from autocoder.core.demo import BRANCH as DEMO_BRANCH
from autocoder.core.demo import make_demo_project
from autocoder.core.engine import Engine
from autocoder.core.errors import AutocoderError, ProjectError, ProjectLocked, UsageError
from autocoder.core.headless import run_headless
from autocoder.core.launcher import LocalLauncher
from autocoder.core.orchestrator import Orchestrator
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel, local_kernel
from autocoder.core.project_lock import ProjectLock
from autocoder.core.questions import Questions
from autocoder.core.settings import Settings, database_path, ledger_path, load_settings
from autocoder.core.store import ProjectStore
from autocoder.core.worktrees import open_repository

OWN_FILES = ("/.autocoder/", "/agent_system.db*")
"""What this program keeps in a project; git is told to overlook it."""


BUSY_TIMEOUT_S = 2.0
"""How long a tick waits for a locked database; the next tick tries again."""


def open_engine(project_dir: Path, settings: Settings) -> Orchestrator:
    """The project's one orchestrator, holding its lock until it is closed.

    Raises:
        ProjectError: the folder cannot serve as a project.
        ProjectLocked: another orchestrator runs it.
        AutocoderError: settings or databases cannot be used. The lock is free again.
    """
    project_dir = existing_folder(project_dir)
    check_backend(settings)
    repository = open_repository(project_dir, settings.base)
    lock = ProjectLock(project_dir)
    try:
        repository.ignore(*OWN_FILES)
        kernel = local_kernel()
        return Orchestrator(
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            store=ProjectStore(database_path(settings, project_dir), busy_timeout_s=BUSY_TIMEOUT_S),
            allocator=_open_ledger(settings, kernel),
            launcher=LocalLauncher(project_dir, settings, kernel),
            kernel=kernel,
            lock=lock,
        )
    except AutocoderError:
        lock.release()
        raise


def _open_ledger(settings: Settings, kernel: Kernel) -> PortAllocator:
    return PortAllocator(
        ledger_path(settings),
        settings.ports,
        ui_port=settings.ui.port,
        kernel=kernel,
        patience_s=BUSY_TIMEOUT_S,
    )


def open_controlled(project_dir: Path, settings: Settings, tcp: TcpWay | None = None) -> Controlled:
    """The project's orchestrator, with its ways in for other processes while it runs.

    Raises:
        AutocoderError: as `open_engine`.
    """
    folder = existing_folder(project_dir)
    engine = open_engine(folder, settings)
    return Controlled(engine, ControlServer(folder, settings, engine.submit, tcp))


def join_engine(project_dir: Path, settings: Settings, tcp: TcpWay | None = None) -> Engine:
    """The project's orchestrator; where one runs in another process, a connection to that one.

    Such a connection becomes the orchestrator when the other process is gone.

    Raises:
        AutocoderError: as `open_engine`, except that nobody can be in the way.
    """
    folder = existing_folder(project_dir)
    try:
        return open_controlled(folder, settings, tcp)
    except ProjectLocked:
        return Attached(folder, lambda: open_controlled(folder, settings, tcp))


def api_way(settings: Settings) -> tuple[TcpWay, str]:
    """Where the REST API is served on TCP, and what to tell the user.

    Raises:
        UsageError: other hosts could reach it, which nobody has allowed.
    """
    way = tcp_way(settings)
    return way, f"API: http://{way.host}:{way.port}/docs, token in {token_file()}"


def web_way(settings: Settings, *, beside_api: bool) -> TcpWay:
    """Where the panel is served to browsers: on the panel's port, or `beside_api` the next.

    Raises:
        UsageError: other hosts could reach it, which nobody has allowed.
    """
    way = tcp_way(settings)
    # By default an agent's web page may ask the API, with the token; never drive the panel.
    origins = way.origins if os.environ.get("AUTOCODER_UI_ALLOWED_ORIGINS") else ()
    return replace(way, port=way.port + beside_api, origins=origins)


def open_questions(project_dir: Path, settings: Settings) -> Questions:
    """Answers about a project's agents, for a front end; nothing is locked or changed.

    Raises:
        AutocoderError: as `open_engine`, except that nobody can be in the way.
    """
    project_dir = existing_folder(project_dir)
    return LocalAnswers(
        project_dir,
        settings,
        repository=open_repository(project_dir, settings.base),
        store=ProjectStore(database_path(settings, project_dir), busy_timeout_s=BUSY_TIMEOUT_S),
        kernel=local_kernel(),
    )


def existing_folder(project_dir: Path) -> Path:
    """The folder, absolute and without links. Raises `ProjectError` where there is none."""
    try:
        resolved = project_dir.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ProjectError(
            f"{project_dir} is not there", "Name the folder of a git repository."
        ) from error
    if not resolved.is_dir():
        raise ProjectError(f"{project_dir} is a file", "Name the folder of a git repository.")
    return resolved


def make_demo(parent: Path | None = None) -> Path:
    """A new demo project, its backlog in its database; the folder to open.

    Raises:
        AutocoderError: it cannot be made; what was begun is removed.
    """
    home = Path(tempfile.mkdtemp(prefix="autocoder-demo-", dir=parent))
    try:
        project = make_demo_project(home / "todo-app")
        store = ProjectStore(project / "agent_system.db")
        import_backlog(store, project / "backlog.json")
        store.close()
    except AutocoderError:
        shutil.rmtree(home)
        raise
    return project


def run_demo(
    show: Callable[[Path], int] | None, cli: Mapping[str, object], *, served: bool = False
) -> int:
    """Make a demo project and `show` it, or without a screen run it to its end; the exit code.

    The project stays where it was made, to be looked at. `served`: it is shown over TCP, too.

    Raises:
        AutocoderError: settings are bad, or it cannot be made; there is none then.
    """
    settings = load_settings(DEMO_BASE, environ=os.environ, cli=cli)
    _refuse_demo(settings, served=served and show is not None)
    sys.stderr.write("making a demo project: a todo app with a backlog of 12 features\n")
    project = make_demo()
    sys.stderr.write(f"it is in {project}; its agents are scripted: no model, no key\n")
    sys.stderr.flush()
    if show is not None:
        return show(project)
    settings = load_settings(project, environ=os.environ, cli={**cli, "stop_when_done": True})
    return run_headless(open_controlled(project, settings), as_json=False)


def _refuse_demo(settings: Settings, *, served: bool) -> None:
    """Raise, before there is one, what would be raised with the finished project."""
    check_backend(settings)
    if settings.base not in ("", DEMO_BRANCH):
        raise UsageError(
            f"{settings.origin('base')}: the demo has no branch {settings.base!r}",
            f"It has: {DEMO_BRANCH}.",
        )
    if served:
        tcp_way(settings)
    _open_ledger(settings, local_kernel()).close()
