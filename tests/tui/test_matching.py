"""Claims about finding what was typed among names."""

from autocoder.tui.matching import NONE, match


def test_what_is_typed_is_found_as_it_stands_before_its_words_before_its_letters() -> None:
    names = ["Wall of logs", "Let it be logged", "logs of all", "List of open goals", "Ports"]
    ranked = sorted(names, key=lambda name: -match("logs", name).score)
    assert ranked[:2] == ["logs of all", "Wall of logs"]
    assert match("logs", "Ports") is NONE
    assert match("due reminder", "Reminders and due dates").positions[:3] == [0, 1, 2]


def test_the_letters_that_were_found_are_known() -> None:
    assert [*match("pq", "a p and a q").positions] == [2, 10]
    assert [*match("AND", "a p and a q").positions] == [4, 5, 6]


def test_nothing_typed_and_nothing_there_match_nothing() -> None:
    assert match("", "name") is NONE
    assert match(" ", "name") is NONE
    assert match("x", "") is NONE


def test_a_name_made_to_be_hard_to_search_is_not() -> None:
    # Trying every way would take longer than the machine lasts.
    assert match("a" * 30 + "b", "ab" * 5_000).score > 0
    assert match("a" * 30 + "c", "ab" * 5_000) is NONE
