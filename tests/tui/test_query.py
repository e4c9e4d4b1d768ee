"""Claims about the filter language."""

from dataclasses import replace

from autocoder.core.models import AgentState
from autocoder.tui.query import parse
from support.snapshots import an_agent, an_ended

ACTIVE = an_agent(1)
CRASHED = an_ended(2, AgentState.CRASHED, "killed by signal 9", 5)


def kept(text: str) -> list[str]:
    return [agent.agent_id for agent in (ACTIVE, CRASHED) if parse(text).holds(agent)]


def test_an_empty_filter_keeps_everyone() -> None:
    assert kept("") == [ACTIVE.agent_id, CRASHED.agent_id]


def test_a_word_is_looked_for_everywhere_and_without_case() -> None:
    assert kept("SIGNAL") == [CRASHED.agent_id]
    assert kept(ACTIVE.agent_id) == [ACTIVE.agent_id]


def test_all_words_must_hold() -> None:
    assert kept("signal scripted") == [CRASHED.agent_id]
    assert kept("signal tag") == []


def test_a_field_narrows_a_word_and_a_comma_widens_it() -> None:
    assert kept("state:crash") == [CRASHED.agent_id]
    assert kept("state:crashed,active") == [ACTIVE.agent_id, CRASHED.agent_id]


def test_a_port_is_found_by_how_it_begins() -> None:
    assert kept("port:51") == [ACTIVE.agent_id]
    assert kept("port:52") == []


def test_an_exclamation_mark_turns_a_word_around() -> None:
    assert kept("!signal") == [ACTIVE.agent_id]
    assert kept("!state:crashed") == [ACTIVE.agent_id]


def test_half_a_filter_hides_nobody_while_it_is_typed() -> None:
    for text in ("state:", "!", "port:", "   "):
        assert len(kept(text)) == 2 or text == "!"


def test_a_held_agent_is_found_by_what_the_grid_calls_it() -> None:
    held = replace(an_ended(3, AgentState.KILLED, "stopped on request", 5), held=True)
    for text in ("state:held", "held", "state:killed"):
        assert parse(text).holds(held)
        assert not parse(text).holds(ACTIVE)


def test_an_unknown_field_is_named_and_looked_for_as_text() -> None:
    query = parse("colour:red")
    assert query.unknown == ("colour",)
    assert kept("colour:red") == []
