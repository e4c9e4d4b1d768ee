"""The feature MCP server: what agents, the assistant and other clients may ask and change.

Tool and argument names are the predecessor's. Unlike its documentation says, and
as its database does, a higher priority number comes first. An agent changes its own
feature only; what becomes of it when the agent ends stays the orchestrator's decision.
"""

import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ParamSpec

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field

from autocoder.core import port_config
from autocoder.core.errors import AutocoderError
from autocoder.core.models import Feature, FeatureStatus, Severity
from autocoder.core.probe import Kernel, descendants
from autocoder.core.stacks import suggestion
from autocoder.core.store import FeatureDraft, Finished, ProjectStore
from autocoder.core.worktrees.git import Git

P = ParamSpec("P")

MOST_FEATURES = 200
"""In one `feature_create_bulk`."""

INSTRUCTIONS = (
    "The backlog of this project and the ports of its agents. A feature with a higher priority "
    "number is worked on first. Ask ports_get for your pair; never assume a port."
)

FeatureId = Annotated[int, Field(description="Number of the feature.", ge=1)]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end, told by the environment the worker made."""

    agent_id: str = ""
    """Empty: a human's program, which may change every feature."""
    feature_id: int | None = None
    api_port: int = port_config.DEFAULT_API_PORT
    web_port: int = port_config.DEFAULT_WEB_PORT
    worktree: Path | None = None
    """Where the agent's commits are; None where nobody's are looked at."""
    start_commit: str = ""
    """Where its branch began."""
    about: str = ""
    """The agent a human's program asks about; the ports above are that one's."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], worktree: Path) -> "Caller":
        """Raises `UsageError` for a port variable that is no port."""
        agent_id = environ.get("AUTOCODER_AGENT_ID", "")
        feature = environ.get("AUTOCODER_FEATURE_ID", "")
        return cls(
            agent_id=agent_id,
            feature_id=int(feature) if feature.isascii() and feature.isdigit() else None,
            api_port=port_config.get_api_port(),
            web_port=port_config.get_web_port(),
            worktree=worktree if agent_id else None,
            start_commit=environ.get("AUTOCODER_START_COMMIT", ""),
            about=environ.get("AUTOCODER_ABOUT_AGENT", ""),
        )


class NewFeature(BaseModel):
    """One feature of `feature_create_bulk`."""

    model_config = ConfigDict(extra="forbid")

    category: str
    name: str = Field(min_length=1, max_length=500)
    description: str
    steps: list[str] = Field(max_length=200)
    priority: int = Field(0, description="A higher number is worked on first.")
    enabled: bool = Field(True, description="False stages it: nobody works on it until enabled.")
    depends_on: list[int | str] = Field(
        default_factory=list,
        description="Numbers of features, or names of features here or in the backlog.",
    )


def feature_server(
    store: ProjectStore, caller: Caller, kernel: Kernel, project_dir: Path
) -> MCPServer[Any]:
    """The server with all its tools; it and `store` belong to the thread that runs it."""
    server: MCPServer[Any] = MCPServer(
        "autocoder-features", instructions=INSTRUCTIONS, log_level="WARNING"
    )
    tools = _Tools(store, caller, kernel, project_dir)
    for tool, read_only in tools.listed():
        server.add_tool(
            _said_to_the_model(tool),
            annotations=ToolAnnotations(read_only_hint=read_only, open_world_hint=False),
            structured_output=False,
        )
    return server


def serve_stdio(project_dir: Path, database: Path) -> None:
    """Answer on stdin and stdout until the client closes them.

    Raises:
        DatabaseError: the project's database cannot be used.
        UsageError: a port variable is no port.
    """
    from autocoder.core.probe import local_kernel

    caller = Caller.from_environment(os.environ, Path.cwd())
    store = ProjectStore(database)
    try:
        feature_server(store, caller, local_kernel(), project_dir).run("stdio")
    finally:
        store.close()


def _said_to_the_model(tool: Callable[P, str]) -> Callable[P, Any]:
    """An async twin that stays in the store's thread and turns refusals into tool errors."""

    async def answer(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return tool(*args, **kwargs)
        except AutocoderError as error:
            raise ToolError(f"{error.message}. {error.hint}".removesuffix(". ")) from error

    answer.__name__ = tool.__name__
    answer.__doc__ = tool.__doc__
    answer.__annotations__ = tool.__annotations__
    answer.__wrapped__ = tool  # type: ignore[attr-defined]  # its signature is the tool's
    return answer


class _Tools:
    def __init__(
        self, store: ProjectStore, caller: Caller, kernel: Kernel, project_dir: Path
    ) -> None:
        self._store = store
        self._caller = caller
        self._kernel = kernel
        self._project_dir = project_dir

    def listed(self) -> tuple[tuple[Callable[..., str], bool], ...]:
        """Every tool, and whether it only reads."""
        return (
            (self.feature_get_stats, True),
            (self.feature_get_next, True),
            (self.feature_claim_next, False),
            (self.feature_get_for_regression, True),
            (self.feature_get_all, True),
            (self.feature_get_by_id, True),
            (self.feature_mark_passing, False),
            (self.feature_report_regression, False),
            (self.feature_mark_in_progress, False),
            (self.feature_skip, False),
            (self.feature_clear_in_progress, False),
            (self.feature_create_bulk, False),
            (self.feature_update, False),
            (self.feature_delete, False),
            (self.ports_get, True),
            (self.detect_stack_and_suggest_ports, True),
        )

    # -- reading

    def feature_get_stats(self) -> str:
        """How far the project is: features passing, in progress, pending, staged, blocked."""
        features = self._store.features()
        done = sum(feature.status is FeatureStatus.DONE for feature in features)
        pending = [feature for feature in features if feature.status is FeatureStatus.PENDING]
        return _json(
            passing=done,
            in_progress=sum(f.status is FeatureStatus.IN_PROGRESS for f in features),
            pending=sum(feature.enabled for feature in pending),
            staged=sum(not feature.enabled for feature in pending),
            blocked=sum(feature.status is FeatureStatus.BLOCKED for feature in features),
            total=len(features),
            percentage=round(100 * done / len(features), 1) if features else 0.0,
        )

    def feature_get_next(self) -> str:
        """The feature to be worked on next, claiming nothing; for an agent always its own."""
        feature = self._own() or self._store.next_claimable()
        if feature is None:
            return _json(feature=None, message="Nothing can be worked on now.")
        return _json(**_shown(feature))

    def feature_get_for_regression(
        self,
        limit: Annotated[int, Field(ge=1, le=50, description="How many at most.")] = 3,
    ) -> str:
        """Some features that pass, by chance, to see whether they still do."""
        done = [f for f in self._store.features() if f.status is FeatureStatus.DONE]
        chosen = random.sample(done, min(limit, len(done)))
        return _json(features=[_shown(feature) for feature in chosen], count=len(chosen))

    def feature_get_all(self) -> str:
        """Every feature, in the order they are worked on: highest priority number first."""
        features = [_shown(feature) for feature in self._store.features()]
        return _json(features=features, total=len(features))

    def feature_get_by_id(self, feature_id: FeatureId) -> str:
        """One feature with all that is known of it."""
        return _json(**_shown(self._store.feature(feature_id)))

    # -- working on features

    def feature_claim_next(
        self, agent_id: Annotated[str, Field(min_length=1, max_length=64)]
    ) -> str:
        """Take the next feature to work on it; an agent has its own already and gets that."""
        own = self._own()
        if own is not None:
            return _json(success=True, feature=_shown(own))
        if self._caller.agent_id:
            raise ToolError(f"agent {self._caller.agent_id} has no feature")
        while (feature := self._store.next_claimable()) is not None:
            # Another client may be quicker; the next one is tried then.
            if self._store.assign(feature.id, agent_id):
                return _json(success=True, feature=_shown(self._store.feature(feature.id)))
        return _json(success=False, feature=None, message="Nothing can be worked on now.")

    def feature_mark_passing(self, feature_id: FeatureId) -> str:
        """Submit a feature as done. Commit first: only what is committed counts."""
        feature = self._may_change(feature_id)
        if self._caller.agent_id:
            self._refuse_uncommitted()
            self._note("feature_submitted", f"submitted: {feature.name}", feature.id)
            return _json(
                success=True,
                feature=_shown(feature),
                message="Submitted. It is verified and merged when you end: stop the servers you "
                "started, then finish.",
            )
        done = self._store.settle_feature(feature_id, Finished(feature.branch_name, merged=True))
        return _json(success=True, feature=_shown(done))

    def feature_mark_in_progress(self, feature_id: FeatureId) -> str:
        """Note that a feature is being worked on; an agent's own already is."""
        feature = self._may_change(feature_id)
        if feature.status is not FeatureStatus.IN_PROGRESS and not self._store.assign(
            feature_id, self._caller.agent_id
        ):
            raise ToolError(
                f"feature {feature_id} cannot be begun: it is {feature.status.lower()}, "
                "or waits for another one"
            )
        return _json(success=True, feature=_shown(self._store.feature(feature_id)))

    def feature_clear_in_progress(self, feature_id: FeatureId) -> str:
        """Give a feature back to the backlog."""
        self._may_change(feature_id)
        if self._caller.agent_id:
            raise ToolError(
                "your feature goes back to the backlog when you end without finishing it"
            )
        return _json(success=True, feature=_shown(self._store.unassign(feature_id)))

    def feature_skip(self, feature_id: FeatureId) -> str:
        """Move a feature to the end of the backlog: its priority becomes the lowest."""
        feature = self._may_change(feature_id)
        if feature.status is FeatureStatus.DONE:
            raise ToolError(f"feature {feature_id} is done; there is nothing to skip")
        lowest = min((f.priority for f in self._store.features() if f.id != feature_id), default=0)
        self._store.set_priority(feature_id, min(lowest - 1, feature.priority))
        self._note(
            "feature_skipped", f"moved to the end of the backlog: {feature.name}", feature_id
        )
        shown = _shown(self._store.feature(feature_id))
        if self._caller.agent_id:
            return _json(
                success=True, feature=shown, message="Say what is in the way, then finish."
            )
        return _json(success=True, feature=shown)

    # -- changing the backlog

    def feature_report_regression(
        self,
        regression_of_id: FeatureId,
        summary: Annotated[str, Field(min_length=1, max_length=500)],
        details: str | None = None,
        steps: list[str] | None = None,
        priority: int = 100,
        enabled: bool = True,
        artifact_path: str | None = None,
        error_key: str | None = None,
    ) -> str:
        """Add a feature that mends one which passed before. Reported twice, it is added once."""
        original = self._store.feature(regression_of_id)
        draft = FeatureDraft(
            name=f"Regression of feature {original.id}: {summary}",
            description=f"{details or summary}\n\nIt once worked: {original.name}.",
            steps=tuple(steps or original.steps),
            category="regression",
            priority=priority,
            enabled=enabled,
        )
        feature, added = self._store.add_regression(
            original.id, draft, error_key=error_key or summary, artifact_path=artifact_path or ""
        )
        if added:
            self._note("regression_reported", feature.name, feature.id)
        return _json(success=True, created=added, feature=_shown(feature))

    def feature_create_bulk(
        self, features: Annotated[list[NewFeature], Field(min_length=1, max_length=MOST_FEATURES)]
    ) -> str:
        """Add features, all of them or none, with what they depend on."""
        added = self._store.add_features(
            [
                FeatureDraft(
                    name=feature.name,
                    description=feature.description,
                    steps=tuple(feature.steps),
                    category=feature.category,
                    priority=feature.priority,
                    enabled=feature.enabled,
                    depends_on=tuple(feature.depends_on),
                )
                for feature in features
            ]
        )
        return _json(success=True, created=len(added), features=[_shown(f) for f in added])

    def feature_update(
        self,
        feature_id: FeatureId,
        category: str | None = None,
        name: str | None = None,
        description: str | None = None,
        steps: list[str] | None = None,
        priority: Annotated[
            int | None, Field(description="A higher number is worked on first.")
        ] = None,
    ) -> str:
        """Change what is given of a feature, and leave the rest."""
        self._may_change(feature_id)
        feature = self._store.edit_feature(
            feature_id,
            name=name,
            description=description,
            steps=steps,
            category=category,
            priority=priority,
        )
        return _json(success=True, feature=_shown(feature))

    def feature_delete(self, feature_id: FeatureId) -> str:
        """Remove a feature nobody works on and none depends on."""
        self._may_change(feature_id)
        deleted = self._store.delete_feature(feature_id)
        self._note("feature_deleted", f"deleted: {deleted.name}", None)
        return _json(success=True, deleted=deleted.id, name=deleted.name)

    # -- ports

    def ports_get(
        self,
        agent_id: Annotated[
            str | None, Field(description="Another agent's; leave it out for your own.")
        ] = None,
    ) -> str:
        """The pair of ports, their URLs, and who listens on them now."""
        own = self._caller.agent_id or self._caller.about
        wanted = agent_id or own
        api, web = self._caller.api_port, self._caller.web_port
        worker: int | None = None
        if wanted:
            live = {record.agent_id: record for record in self._store.live_agents()}
            record = live.get(wanted)
            if record is not None:
                worker = record.pid
            if wanted != own:
                if record is None or record.api_port is None or record.web_port is None:
                    raise ToolError(
                        f"agent {wanted} is not running and holds no ports. Live: "
                        + (", ".join(live) or "none")
                    )
                api, web = record.api_port, record.web_port
        return _json(
            agent_id=wanted,
            api_port=api,
            web_port=web,
            api_url=f"http://localhost:{api}",
            web_url=f"http://localhost:{web}",
            variables={"api": "AUTOCODER_API_PORT", "web": "AUTOCODER_WEB_PORT"},
            listeners=self._listeners({"api": api, "web": web}, worker),
        )

    def detect_stack_and_suggest_ports(self) -> str:
        """What the project is built with, by which evidence, and the commands that start its
        servers on your ports."""
        folder = self._caller.worktree or self._project_dir
        return _json(
            **suggestion(folder, api_port=self._caller.api_port, web_port=self._caller.web_port)
        )

    # -- underneath

    def _own(self) -> Feature | None:
        if not self._caller.agent_id or self._caller.feature_id is None:
            return None
        return self._store.feature(self._caller.feature_id)

    def _may_change(self, feature_id: int) -> Feature:
        """The feature, if the caller may change it."""
        caller = self._caller
        if caller.agent_id and feature_id != caller.feature_id:
            raise ToolError(
                f"feature {feature_id} is not yours: agent {caller.agent_id} works on feature "
                f"{caller.feature_id} and may change only that one"
            )
        feature = self._store.feature(feature_id)
        if caller.agent_id and feature.agent_id not in ("", caller.agent_id):
            raise ToolError(
                f"feature {feature_id} was given to agent {feature.agent_id} meanwhile; finish now"
            )
        return feature

    def _refuse_uncommitted(self) -> None:
        worktree = self._caller.worktree
        if worktree is None:
            return
        git = Git(worktree)
        changed = git.run("status", "--porcelain", "-z", "--untracked-files=normal").fields()
        if changed:
            names = ", ".join(line[3:] for line in changed[:5])
            raise ToolError(
                f"{len(changed)} files are not committed ({names}): commit or remove them, "
                "then submit again"
            )
        start = self._caller.start_commit
        if start and git.run("rev-list", "--count", f"{start}..HEAD").line() == "0":
            raise ToolError("there is no commit on your branch yet: commit your work, then submit")

    def _listeners(self, ports: Mapping[str, int], worker: int | None) -> dict[str, Any]:
        listening = self._kernel.listeners()
        own = descendants(self._kernel.processes(), worker) if worker is not None else set()
        return {
            role: [
                {
                    "pid": found.pid,
                    "command": found.command,
                    "own": found.pid is not None and found.pid in own,
                }
                for found in listening.get(port, ())
            ]
            for role, port in ports.items()
        }

    def _note(self, kind: str, message: str, feature_id: int | None) -> None:
        self._store.add_event(
            Severity.INFO, kind, message, agent_id=self._caller.agent_id, feature_id=feature_id
        )


def _shown(feature: Feature) -> dict[str, object]:
    return {
        "id": feature.id,
        "name": feature.name,
        "description": feature.description,
        "category": feature.category,
        "steps": list(feature.steps),
        "status": feature.status.value,
        "passes": feature.status is FeatureStatus.DONE,
        "in_progress": feature.status is FeatureStatus.IN_PROGRESS,
        "enabled": feature.enabled,
        "priority": feature.priority,
        "attempts": feature.attempts,
        "depends_on": list(feature.depends_on),
        "assigned_agent_id": feature.agent_id or None,
        "branch_name": feature.branch_name,
        "last_error": feature.last_error,
    }


def _json(**answer: object) -> str:
    return json.dumps(answer, ensure_ascii=False)
