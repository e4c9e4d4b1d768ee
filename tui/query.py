"""The filter language of `/`: words that must all hold, `field:value`, `!` to negate.

`state:crashed port:51 !login` shows crashed agents on a port that begins with
51 and say nothing of login. `a,b` after a field means either.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from autocoder.core.models import Agent
from autocoder.tui.palette import STATE_WORD, state_of


def _contains(value: str, wanted: str) -> bool:
    return wanted in value.casefold()


def _ports(agent: Agent) -> tuple[str, ...]:
    return tuple(str(port) for port in (agent.api_port, agent.web_port) if port is not None)


FIELDS: Final[Mapping[str, Callable[[Agent, str], bool]]] = MappingProxyType(
    {
        "state": lambda agent, wanted: (
            state_of(agent)[1].startswith(wanted)
            or STATE_WORD[agent.state].startswith(wanted)
            or agent.state.value.casefold().startswith(wanted)
        ),
        "agent": lambda agent, wanted: _contains(agent.agent_id, wanted),
        "feature": lambda agent, wanted: (
            _contains(agent.feature, wanted) or str(agent.feature_id) == wanted
        ),
        "backend": lambda agent, wanted: _contains(agent.backend, wanted),
        "branch": lambda agent, wanted: _contains(agent.branch, wanted),
        "worktree": lambda agent, wanted: _contains(agent.worktree_path, wanted),
        "pid": lambda agent, wanted: str(agent.pid or "").startswith(wanted),
        "port": lambda agent, wanted: any(port.startswith(wanted) for port in _ports(agent)),
        "problem": lambda agent, wanted: bool(agent.problem) == (wanted not in ("no", "none")),
    }
)


@dataclass(frozen=True, slots=True)
class Term:
    wanted: tuple[str, ...]
    field: str = ""
    """Empty: anywhere in what the grid says about the agent."""
    negated: bool = False

    def holds(self, agent: Agent) -> bool:
        test = FIELDS.get(self.field, _anywhere)
        return any(test(agent, value) for value in self.wanted) is not self.negated


@dataclass(frozen=True, slots=True)
class Query:
    """A filter as typed, understood; an empty one lets every agent through."""

    text: str = ""
    terms: tuple[Term, ...] = ()
    unknown: tuple[str, ...] = ()
    """Field names that do not exist; such words are looked for as they stand."""

    def holds(self, agent: Agent) -> bool:
        return all(term.holds(agent) for term in self.terms)


def parse(text: str) -> Query:
    """Never fails: what is no known field is looked for as text."""
    terms, unknown = [], []
    for word in text.casefold().split():
        negated = word.startswith("!") and len(word) > 1
        bare = word[1:] if negated else word
        name, colon, values = bare.partition(":")
        if colon and name in FIELDS:
            wanted = tuple(value for value in values.split(",") if value)
            if wanted:
                terms.append(Term(wanted, name, negated))
            continue
        if colon and name.isalpha():
            unknown.append(name)
        terms.append(Term((bare,), "", negated))
    return Query(text.strip(), tuple(terms), tuple(unknown))


def _anywhere(agent: Agent, wanted: str) -> bool:
    said = (
        agent.agent_id,
        agent.feature,
        agent.backend,
        agent.branch,
        agent.worktree_path,
        agent.reason,
        agent.problem,
        agent.last_line,
        STATE_WORD[agent.state],
        state_of(agent)[1],
    )
    return any(_contains(text, wanted) for text in said) or wanted in _ports(agent)
