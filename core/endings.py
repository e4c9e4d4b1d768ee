"""How an agent's end is settled and said. Pure: what it does is the fleet's."""

from autocoder.core import lifecycle
from autocoder.core.lifecycle import ExitFacts, Verdict
from autocoder.core.models import AgentState, Feature, FeatureStatus, Severity
from autocoder.core.verify import Broken, Closed
from autocoder.core.worktrees import Conflict, Merged, ReadyToMerge

TOLD_LINES = 5
"""How much of a failed verification's output the next attempt is told."""


def closed_verdict(closed: Closed, facts: ExitFacts | None, *, ran_s: float, base: str) -> Verdict:
    """The verdict on an agent that finished, now that git has had its say."""
    if isinstance(closed.merge, Conflict):
        paths = ", ".join(closed.merge.paths[:5])
        return Verdict(
            AgentState.FAILED, f"merge conflict with {base} in {paths}", "merge conflict"
        )
    if isinstance(closed.verification, Broken):
        return Verdict(AgentState.FAILED, str(closed.verification), "verification failed")
    return lifecycle.verdict(facts, ran_s=ran_s, commits=closed.commits)


def told_next(verdict: Verdict, closed: Closed | None, base: str) -> str:
    """What the feature's next attempt is told of this one."""
    if closed is not None and isinstance(closed.merge, Conflict):
        return f"{verdict.reason}. Merge {base} into your branch and resolve it."
    if closed is not None and isinstance(closed.verification, Broken):
        return "\n".join((verdict.reason, *closed.verification.last_lines[-TOLD_LINES:]))
    return verdict.reason


def said_at_end(
    verdict: Verdict,
    feature: Feature,
    *,
    closed: Closed | None,
    facts: ExitFacts | None,
    asked: bool,
    held_back: bool,
    branch: str,
    base: str,
    settled: Feature | None,
) -> tuple[Severity, str]:
    """The notice of an agent's end; `settled` is its feature as it is afterwards."""
    text = f"{verdict.state.lower()}: {feature.name}: {verdict.reason}"
    severity = Severity.WARNING
    merge = closed.merge if closed else None
    if closed is not None and isinstance(merge, Merged):
        severity = Severity.INFO
        # Base had them already where an earlier orchestrator ended right after its merge.
        commits = lifecycle.plural(merge.count or closed.commits, "commit")
        text = f"completed: {feature.name}: merged {commits} into {base}"
    elif isinstance(merge, ReadyToMerge):
        text += f"; ready to merge from {branch}: {merge.reason}"
    elif asked:
        severity = Severity.INFO
    if closed is not None and closed.merge is not None:
        if closed.verification is not None and not isinstance(closed.verification, Broken):
            text += f", {closed.verification}"
        if closed.warnings:
            severity = Severity.WARNING
            text += "".join(f"; {warning}" for warning in closed.warnings)
    if facts is not None:
        if asked:
            text += f"; {lifecycle.receipt(facts)}"
        if facts.foreign_ports:
            ports = ", ".join(map(str, facts.foreign_ports[:5]))
            text += f"; it tried {ports}, not its own"
    if held_back:
        text += "; its feature waits until it is retried or started again"
    if settled is not None and settled.status is FeatureStatus.BLOCKED:
        severity = Severity.ERROR
        text += f"; feature {settled.id} is blocked after {settled.attempts} attempts"
    return severity, text
