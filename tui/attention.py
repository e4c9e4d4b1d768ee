"""Which agents need somebody, or have finished, since an earlier snapshot."""

from autocoder.core.logs import sanitise
from autocoder.core.models import Agent, AgentState, Snapshot
from autocoder.tui.render_agents import problems
from autocoder.tui.spans import clip

MOST_CELLS = 160


def what_calls(before: Snapshot, after: Snapshot) -> str:
    """A sentence for somebody who looks elsewhere; empty when nothing calls for them."""
    known = {agent.agent_id for agent in problems(before)}
    calling = [agent for agent in problems(after) if agent.agent_id not in known]
    working = {agent.agent_id for agent in before.agents if agent.live}
    done = [
        agent
        for agent in after.agents
        if agent.state is AgentState.COMPLETED and agent.agent_id in working
    ]
    said = [_of(calling, "needs you", "need you"), _of(done, "is done", "are done")]
    words = ", ".join(filter(None, said))
    return clip(f"autocoder {sanitise(after.project)}: {words}", MOST_CELLS) if words else ""


def _of(agents: list[Agent], one: str, several: str) -> str:
    if len(agents) > 1:
        return f"{len(agents)} agents {several}"
    return "".join(f"{sanitise(a.agent_id)} {one} ({sanitise(a.feature)})" for a in agents)
