"""Answers to `Questions`, from git, the kernel, the run folders and the project database."""

import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from autocoder.core.backends.choice import availability, model_of
from autocoder.core.commands import SpawnAgent
from autocoder.core.errors import UsageError
from autocoder.core.launcher import run_folder
from autocoder.core.models import (
    Agent,
    PoolStatus,
    Role,
    Snapshot,
    WorktreeStatus,
)
from autocoder.core.ports.rules import host_rules, next_block
from autocoder.core.probe import TICKS_PER_SECOND, Kernel, Process, one_line
from autocoder.core.questions import (
    BackendChoice,
    Details,
    Growth,
    PastEvent,
    ProcessLine,
    SettingValue,
    SpawnForecast,
)
from autocoder.core.settings import BACKENDS, Settings, documented
from autocoder.core.settings_change import shown_setting, shown_value
from autocoder.core.store import ProjectStore
from autocoder.core.worktrees import Repository, survey

PROMPT_LIMIT = NEW_FILE_LIMIT = 64 * 1024
OURS = ("AUTOCODER_", "API_PORT", "WEB_PORT", "VITE_PORT", "PORT")
"""Variables whose values are shown; every other one may hold a secret."""
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")


class LocalAnswers:
    """For agents that run on this host; safe from any one thread at a time."""

    def __init__(
        self,
        project_dir: Path,
        settings: Settings,
        *,
        repository: Repository,
        store: ProjectStore,
        kernel: Kernel,
    ) -> None:
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._store = store
        self._kernel = kernel

    def details(self, agent: Agent) -> Details:
        folder = run_folder(self._project_dir, agent.agent_id)
        processes = self._processes(agent)
        repository = self._repository_of(agent)
        return Details(
            processes=processes,
            environment=_environment(self._kernel, processes),
            facts=_facts(folder / "exit.json"),
            changed_paths=repository.changed_paths(agent.branch)
            if agent.branch and repository.commits_ahead(agent.branch)
            else (),
            prompt=_prompt(folder / "prompt.md"),
        )

    def diff(self, agent: Agent) -> str:
        repository = self._repository_of(agent)
        if agent.worktree_path and Path(agent.worktree_path).is_dir():
            worktree = Path(agent.worktree_path)
            _, unknown = repository.changes(worktree)
            new = "".join(_new_file(worktree, name) for name in sorted(unknown))
            return repository.diff_worktree(worktree) + new
        if agent.branch and repository.commits_ahead(agent.branch):
            return repository.diff(agent.branch)
        return ""

    def events(self, limit: int) -> tuple[PastEvent, ...]:
        return tuple(
            PastEvent(
                at=event.at,
                severity=event.level,
                kind=event.event_type,
                text=event.message,
                agent_id=event.agent_id,
                feature_id=event.feature_id,
            )
            for event in self._store.events(limit)
        )

    def growth(
        self, pools: Sequence[PoolStatus], roles: Sequence[Role], amount: int
    ) -> tuple[Growth, ...]:
        rules = host_rules(self._settings.ui.port)
        listeners = self._kernel.listeners()
        ranges = [span for pool in pools for span in pool.ranges]
        found = []
        for role in roles:
            after = max(span.end for pool in pools if pool.role is role for span in pool.ranges)
            span = next_block(amount, after, ranges, rules)
            if span is None:
                found.append(Growth(role, None))
                continue
            ranges.append(span)
            taken = tuple(
                (port, listeners[port][0].command if port in listeners else "")
                for port in range(span.start, span.end)
                if port in listeners or not self._kernel.is_free(port)
            )
            found.append(Growth(role, span, len(span) - len(taken), taken))
        return tuple(found)

    def settings(self) -> tuple[SettingValue, ...]:
        return tuple(
            SettingValue(
                name,
                shown_setting(self._settings, name),
                self._settings.origin(name).removeprefix(f"{self._project_dir}/"),
                meaning,
            )
            for name, _, _, meaning in documented()
        )

    def worktrees(self) -> tuple[WorktreeStatus, ...]:
        in_use, bases = self._store.worktrees_in_use(), self._store.branch_bases()
        return survey(self._repository, in_use, bases)

    def forecast(self, wish: SpawnAgent, snapshot: Snapshot) -> SpawnForecast:
        backend = wish.backend or self._settings.backend
        settings = replace(
            self._settings, backend=backend, model=wish.model or self._settings.model
        )
        repository = self._repository.on(wish.base)
        names = dict.fromkeys((self._settings.backend, *BACKENDS, *self._settings.backends))
        choices = tuple(self._choice(name) for name in names)
        forecast = SpawnForecast(choices, backend, model_of(settings), repository.base)
        chosen = self._choice(backend)
        if not chosen.usable:
            why = f"{backend} cannot run here: {chosen.detail}"
            return replace(forecast, refusal=why, remedy=chosen.remedy)
        if repository.base not in repository.branches():
            return replace(
                forecast,
                refusal=f"there is no branch {repository.base!r}",
                remedy="Name a local branch to start from.",
            )
        pairs = self._next_pairs(snapshot, max(1, wish.variants))
        if not pairs and self._settings.ports.mode == "pool":
            return replace(
                forecast, refusal="no free pair of ports", remedy="e extends the pools first."
            )
        name = wish.task.strip().partition("\n")[0].strip()
        number = max((each.id for each in snapshot.backlog), default=0) + 1
        branch = repository.branch_name(number, name) if name else ""
        return replace(forecast, branch=branch, pairs=pairs)

    def _choice(self, name: str) -> BackendChoice:
        found = availability(name, self._settings)
        return BackendChoice(name, found.usable, found.detail, found.remedy)

    def _next_pairs(self, snapshot: Snapshot, count: int) -> tuple[tuple[int, int], ...]:
        """The lowest ports nobody holds that can be bound now, as the ledger would grant them."""
        if self._settings.ports.mode != "pool":
            return ()
        api, web = (self._free_ports(role, snapshot) for role in (Role.API, Role.WEB))
        return tuple(islice(zip(api, web, strict=False), count))

    def _free_ports(self, role: Role, snapshot: Snapshot) -> Iterator[int]:
        barred = host_rules(self._settings.ui.port).never | {each.port for each in snapshot.leases}
        for pool in snapshot.pools:
            for span in pool.ranges if pool.role is role else ():
                for port in range(span.start, span.end):
                    if port not in barred and self._kernel.is_free(port):
                        yield port

    def _repository_of(self, agent: Agent) -> Repository:
        """With the base of the agent's feature, where that has one of its own."""
        try:
            return self._repository.on(self._store.feature(agent.feature_id).base)
        except UsageError:
            return self._repository  # the feature is gone

    def _processes(self, agent: Agent) -> tuple[ProcessLine, ...]:
        table = self._kernel.processes()
        root = table.get(agent.pid or 0)
        if root is None or (agent.pid_start is not None and root.start != agent.pid_start):
            return ()
        return tuple(self._tree(table, root, 0))

    def _tree(
        self, table: Mapping[int, Process], process: Process, depth: int
    ) -> Iterator[ProcessLine]:
        arguments = self._kernel.command_line(process.pid)
        yield ProcessLine(
            pid=process.pid,
            depth=depth,
            command=one_line(arguments) if arguments else f"[{process.name}]",
            state=process.state,
            memory_bytes=process.rss_bytes,
            cpu_seconds=process.cpu_ticks / TICKS_PER_SECOND,
        )
        children = [child for child in table.values() if child.ppid == process.pid]
        for child in sorted(children, key=lambda each: (each.start, each.pid)):
            yield from self._tree(table, child, depth + 1)


def _environment(kernel: Kernel, processes: tuple[ProcessLine, ...]) -> tuple[tuple[str, str], ...]:
    # The worker's own environment is ours; what counts is what its backend was given.
    backend = next((process for process in processes if process.depth == 1), None)
    if backend is None:
        return ()
    variables = kernel.environment(backend.pid)
    return tuple((name, _safe_value(name, variables[name])) for name in sorted(variables))


def _safe_value(name: str, value: str) -> str:
    ours = name.startswith(OURS)
    return value if ours and not any(word in name for word in SECRET) else ""


def _new_file(worktree: Path, name: str) -> str:
    """A file git does not know yet, written like a diff; git itself would leave it out."""
    head = f"diff --git a/{name} b/{name}\nnew file, not yet added\n"
    try:
        # A link is not followed: it may lead anywhere.
        descriptor = os.open(worktree / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return f"{head}not shown: {error.strerror}\n"
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return f"{head}not shown: no plain file\n"
        content = file.read(NEW_FILE_LIMIT)
    if b"\0" in content:
        return f"{head}not shown: binary\n"
    return head + "".join(f"+{line}\n" for line in content.decode("utf-8", "replace").splitlines())


def _facts(path: Path) -> tuple[tuple[str, str], ...]:
    try:
        facts: Any = json.loads(path.read_text("utf-8", "replace"))
    except (OSError, ValueError):
        return ()
    if not isinstance(facts, dict):
        return ()
    return tuple(
        (str(name).replace("_", " "), _said(str(name), value))
        for name, value in facts.items()
        if value not in ([], "")
    )


def _said(name: str, value: object) -> str:
    if name.endswith("_at") and isinstance(value, int | float):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    return shown_value(value)


def _prompt(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(PROMPT_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
