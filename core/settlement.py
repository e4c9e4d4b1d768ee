"""How an agent ends: its tree is dead, then judged, then its row is history and its pair free.

The reverse of a beginning, and as safe to be cut off: nothing of the agent lives
before its row says so, and a step whose row cannot be written is taken again at the
next tick.
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from autocoder.core import lifecycle
from autocoder.core.admission import Admission
from autocoder.core.agent_leases import AgentLeases
from autocoder.core.endings import closed_verdict, said_at_end, told_next
from autocoder.core.errors import AutocoderError, DatabaseError, RefusedError
from autocoder.core.launcher import Launcher, read_run
from autocoder.core.lifecycle import Verdict
from autocoder.core.live_agents import LiveAgent, LiveAgents, Stage
from autocoder.core.logs import add_line
from autocoder.core.models import AgentState, Feature, FeatureStatus, Severity
from autocoder.core.notices import Notices
from autocoder.core.observer import last_logged
from autocoder.core.probe import Kernel
from autocoder.core.settings import Settings
from autocoder.core.stacks import completion_message
from autocoder.core.store import Failed, FeatureOutcome, Finished, ProjectStore, Requeued
from autocoder.core.upkeep import Upkeep
from autocoder.core.verify import Cancelled, Closed, Finish, Verifier
from autocoder.core.worktrees import Merged, Repository


class Settlement:
    def __init__(
        self,
        agents: LiveAgents,
        leases: AgentLeases,
        *,
        project_dir: Path,
        settings: Settings,
        repository: Repository,
        store: ProjectStore,
        launcher: Launcher,
        kernel: Kernel,
        notices: Notices,
        admission: Admission,
        upkeep: Upkeep,
        verifier: Verifier,
        rng: random.Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._agents = agents
        self._leases = leases
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._store = store
        self._launcher = launcher
        self._kernel = kernel
        self._notices = notices
        self._admission = admission
        self._upkeep = upkeep
        self._verifier = verifier
        self._rng = rng
        self._now = now
        self.stopped_alike = ""
        """Why no agent starts by itself any more; empty while agents may."""

    def worker_ended(self, live: LiveAgent) -> None:
        """The worker is gone: end what it left, and find out what it achieved."""
        record = live.record
        live.facts = facts = self._launcher.facts(record.agent_id)
        if facts is None:
            worktree = Path(record.worktree_path or "/nonexistent")
            ended = self._launcher.end_leftovers(
                record.agent_id, worktree, live.worker, live.seen_tree
            )
            if ended:
                left = lifecycle.plural(ended, "process", "processes")
                text = f"its worker was killed; {left} it left ended"
                self._notices.say(Severity.WARNING, record.agent_id, text)
        verdict = lifecycle.verdict(
            facts,
            ran_s=self._ran(live),
            commits=None,
            asked=live.asked,
            last_line=last_logged(live.log) if facts is None else "",
            not_its_fault=self._not_its_fault(live),
        )
        if live.displaced:
            verdict = Verdict(AgentState.KILLED, live.displaced, counted=False)
        if live.worker is not None:
            self._launcher.close(live.worker)
            live.worker = None
        if facts is not None and facts.ending == "ports_taken" and not live.asked:
            live.stage = Stage.MOVING
            return
        self._agents.set_state(live, AgentState.STOPPING)
        if facts is not None and facts.ending == "exited" and facts.exit_code == 0:
            live.stage = Stage.CLOSING
            live.closing = self._verifier.submit(self._finish(live))
        else:
            self.end(live, verdict)

    def close_finished(self, live: LiveAgent, closing: Future[Closed]) -> None:
        """Git has had its say on an agent that finished."""
        failure = closing.exception()
        if isinstance(failure, Cancelled):
            said = live.displaced or "stopped before its branch was merged"
            self.end(live, Verdict(AgentState.KILLED, said, counted=False))
            return
        if isinstance(failure, AutocoderError):
            # Its commits are safe on the branch; only counting them failed.
            said = f"not closed: {failure.message}"
            self.end(live, Verdict(AgentState.FAILED, said, "infrastructure", counted=False))
            return
        live.closed = closing.result()
        base = self._base(live)
        self.end(live, closed_verdict(live.closed, live.facts, ran_s=self._ran(live), base=base))

    def end(self, live: LiveAgent, verdict: Verdict) -> None:
        """Nothing of the agent lives: decide what becomes of its feature."""
        live.stage = Stage.ENDING
        live.verdict = verdict
        live.outcome = self._outcome(live, verdict)

    def settle(self, live: LiveAgent) -> None:
        """Move its row to the history, give its pair back, say so.

        `then_recover` stays true only where its feature may be gone on with.

        Raises:
            DatabaseError: nothing has changed; the next tick tries again.
        """
        verdict, outcome = live.verdict, live.outcome
        assert verdict is not None
        assert outcome is not None
        record, facts = live.record, live.facts
        try:
            feature = self._store.end_agent(
                record.agent_id,
                state=verdict.state,
                exit_code=facts.exit_code if facts else None,
                reason=verdict.reason,
                outcome=outcome,
                eaddrinuse=facts.eaddrinuse if facts else 0,
            )
        except DatabaseError:
            raise
        except RefusedError:
            feature = None  # another program has ended its row already
        self._agents.remove(record.agent_id)
        self._upkeep.forget(record.agent_id)
        self._leases.release(record.agent_id, record.epoch)
        self._count(live, verdict)
        self._say_end(live, verdict, feature)
        live.then_recover &= feature is not None and feature.status is FeatureStatus.PENDING
        if not live.then_recover:
            merged = isinstance(outcome, Finished) and outcome.merged
            self._upkeep.tidy(record, merged=merged)

    def _not_its_fault(self, live: LiveAgent) -> str:
        """Why the host or this program, not the agent, ended the worker; empty if it did not."""
        record, worker = live.record, live.worker
        if worker is not None and worker.status is not None and worker.status >= 0:
            said = last_logged(live.log)
            return f"its worker gave up with code {worker.status}" + (f": {said}" if said else "")
        if record.pid is None and worker is None:
            return "its orchestrator ended before it had a worker"
        if record.boot_id and record.boot_id != self._kernel.identity.boot_id:
            return "the host was restarted"
        return ""

    def _finish(self, live: LiveAgent) -> Finish:
        record = live.record
        # Where its branch began: base may contain it already, after a crash in between.
        run = read_run(self._project_dir, record.agent_id) or {}
        return Finish(
            agent_id=record.agent_id,
            feature_id=live.feature.id,
            branch=record.branch,
            start_commit=str(run.get("start_commit") or ""),
            worktree=Path(record.worktree_path),
            pair=live.pair,
            base=live.feature.base,
            on_request=live.feature.variant_of is not None,
            served=live.served,
            cancelled=live.cancelled,
        )

    def _outcome(self, live: LiveAgent, verdict: Verdict) -> FeatureOutcome:
        now, limits = self._now(), self._settings.limits
        if verdict.state is AgentState.COMPLETED:
            merged = live.closed is not None and isinstance(live.closed.merge, Merged)
            return Finished(live.record.branch, merged=merged)
        if live.asked:
            return Requeued(verdict.reason)
        if not verdict.counted:
            return Requeued(verdict.reason, now + self._admission.trouble(live.feature.id))
        delay = lifecycle.retry_delay(live.feature.attempts + 1, limits.retry_s, self._rng)
        told = told_next(verdict, live.closed, self._base(live))
        return Failed(told, verdict.error_key, now + delay, limits.attempts)

    def _count(self, live: LiveAgent, verdict: Verdict) -> None:
        tally = self._agents.tally
        match verdict.state:
            case AgentState.COMPLETED:
                tally.completed += 1
                self._admission.completed()
            case AgentState.FAILED:
                tally.failed += 1
            case AgentState.CRASHED:
                tally.crashed += 1
            case _:
                tally.killed += 1
        if live.facts is not None:
            tally.eaddrinuse += live.facts.eaddrinuse
        failed = verdict.state in (AgentState.FAILED, AgentState.CRASHED) and verdict.counted
        if failed and self._admission.failed(live.feature.id, verdict.error_key):
            self.stopped_alike = verdict.reason

    def _say_end(self, live: LiveAgent, verdict: Verdict, settled: Feature | None) -> None:
        if verdict.error_key == "infrastructure":
            # The next one meets the same: said once, until an agent has started again.
            text = f"{verdict.reason}; its feature waits, its attempts are unchanged"
            self._notices.stand(Severity.WARNING, "infrastructure", text)
            return
        severity, text = said_at_end(
            verdict,
            live.feature,
            closed=live.closed,
            facts=live.facts,
            asked=live.asked is not None,
            held_back=live.feature.id in self._agents.held_back,
            branch=live.record.branch,
            base=self._base(live),
            settled=settled,
        )
        if live.closed is not None:
            app = live.closed.app
        else:
            app = completion_message(
                None,
                branch=live.record.branch,
                api_port=live.pair.api_port,
                web_port=live.pair.web_port,
                served=live.served,
            )
        if app:
            text += f"; {app}"
        add_line(live.log, f"autocoder: {text}")
        self._notices.say(severity, live.agent_id, text, feature_id=live.feature.id)

    def _base(self, live: LiveAgent) -> str:
        return live.feature.base or self._repository.base

    def _ran(self, live: LiveAgent) -> float:
        if live.facts is not None:
            return live.facts.ended_at - live.facts.started_at
        return self._now() - live.record.started_at
