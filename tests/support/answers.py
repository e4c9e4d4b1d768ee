"""Hand-made answers to what a person asks who looks closer."""

from collections.abc import Sequence
from dataclasses import replace

from autocoder.core.commands import SpawnAgent
from autocoder.core.errors import GitError
from autocoder.core.models import (
    Agent,
    PoolStatus,
    PortRange,
    Role,
    Severity,
    Snapshot,
    WorktreeStatus,
)
from autocoder.core.questions import (
    BackendChoice,
    Details,
    Growth,
    PastEvent,
    ProcessLine,
    SettingValue,
    SpawnForecast,
)
from support.snapshots import NOW

CHOICES = (
    BackendChoice("scripted", True, "built in"),
    BackendChoice("claude", True, "Claude Agent SDK"),
    BackendChoice("codex", False, "codex is not installed", "npm install -g @openai/codex"),
)
FORECAST = SpawnForecast(
    CHOICES, "scripted", "", "main", "feat/49-fix-login", ((5014, 5183), (5015, 5184))
)


class Answers:
    """Hand-made answers; git refuses the diff of one agent."""

    def __init__(
        self,
        *worktrees: WorktreeStatus,
        refused: Agent | None = None,
        forecast: SpawnForecast = FORECAST,
    ) -> None:
        self.trees = worktrees
        self.foreseen = forecast
        self._refused = refused

    def details(self, agent: Agent) -> Details:
        worker = ProcessLine(48211, 0, "agent_worker.py", "S", 8_000_000, 0.2)
        server = ProcessLine(48213, 1, "python -m api", "S", 20_000_000, 1.5)
        variables = (("ANTHROPIC_API_KEY", ""), ("AUTOCODER_API_PORT", "5000"))
        facts = (("exit_code", "0"), ("hostile", "\x1b]0;owned\x07"))
        return Details((worker, server), variables, facts, ("api/search.py",), "Do it.")

    def diff(self, agent: Agent) -> str:
        if agent == self._refused:
            raise GitError("not a tree object", "Look at the repository.")
        return "diff --git a/x b/x\n@@ -1 +1 @@\n-old\n+new \x1b[2J\n"

    def events(self, limit: int) -> tuple[PastEvent, ...]:
        return (PastEvent(NOW, Severity.INFO, "spawned", "on feature 1", "a-0f31", 1),)

    def growth(
        self, pools: Sequence[PoolStatus], roles: Sequence[Role], amount: int
    ) -> tuple[Growth, ...]:
        if amount > 200:
            return tuple(Growth(role, None) for role in roles)
        span = PortRange(6000, 6000 + amount)
        return tuple(Growth(role, span, amount - 1, ((6007, "812 postgres"),)) for role in roles)

    def settings(self) -> tuple[SettingValue, ...]:
        return (SettingValue("parallel", "9", "$AUTOCODER_PARALLEL", "agents at once"),)

    def worktrees(self) -> tuple[WorktreeStatus, ...]:
        return self.trees

    def forecast(self, wish: SpawnAgent, snapshot: Snapshot) -> SpawnForecast:
        chosen = next(each for each in CHOICES if each.name == (wish.backend or "scripted"))
        refusal = "" if chosen.usable else f"{chosen.name} cannot run here: {chosen.detail}"
        if wish.base == "nowhere":
            refusal = "there is no branch 'nowhere'"
        return replace(
            self.foreseen,
            backend=chosen.name,
            base=wish.base or "main",
            pairs=self.foreseen.pairs[: wish.variants],
            refusal=refusal or self.foreseen.refusal,
            remedy=chosen.remedy or self.foreseen.remedy,
        )
