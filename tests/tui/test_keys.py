"""Claims about the table of keys."""

from itertools import combinations

from textual.binding import Binding

from autocoder.tui import keys
from autocoder.tui.app import Panel
from autocoder.tui.screens.assistant import AssistantScreen
from autocoder.tui.screens.features import FeaturesScreen
from autocoder.tui.screens.main import MainScreen
from autocoder.tui.screens.ports import PortsScreen
from autocoder.tui.screens.spawn import SpawnScreen
from autocoder.tui.screens.wall import WallScreen
from autocoder.tui.screens.worktrees import WorktreesScreen
from autocoder.tui.widgets.log_pane import LogPane
from autocoder.tui.widgets.table import Table

EATEN = {"ctrl+a", "ctrl+b", "ctrl+s", "ctrl+q", "ctrl+z"}
"""Keys that tmux, flow control or the shell take before any program sees them."""
SCREENS = (
    MainScreen,
    PortsScreen,
    FeaturesScreen,
    WorktreesScreen,
    WallScreen,
    SpawnScreen,
    AssistantScreen,
)
"""Whose keys are in `keys.SCREENS`, in its order."""


def _keys(binding: Binding) -> set[str]:
    return set(binding.key.split(","))


def test_no_two_actions_share_a_key() -> None:
    for screen in keys.SCREENS:
        for one, other in combinations(screen, 2):
            assert not _keys(one) & _keys(other), (one.action, other.action)


def test_nothing_depends_on_keys_that_terminals_eat() -> None:
    tables = [
        binding
        for table in (*keys.SCREENS, Table.BINDINGS, LogPane.BINDINGS)
        for binding in table
        if isinstance(binding, Binding)
    ]
    for binding in tables:
        usable = [
            key
            for key in _keys(binding)
            if key not in EATEN
            and not key.startswith(("alt+", "shift+"))
            and not (key[0] == "f" and key[1:].isdigit())
        ]
        assert usable, binding


def test_every_key_has_a_name_to_rebind_it_by_and_words_for_the_help() -> None:
    for screen, bindings in zip(SCREENS, keys.SCREENS, strict=True):
        for binding in bindings:
            assert binding.id
            assert binding.tooltip
            place = Panel if binding in keys.EVERYWHERE else screen
            assert hasattr(place, f"action_{binding.action.partition('(')[0]}"), binding.action


def test_the_readme_table_has_a_row_for_every_key() -> None:
    rows = [line for line in keys.as_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(bindings) for _, bindings in keys.GROUPS)


def test_the_footer_has_a_place_for_every_key_it_shows() -> None:
    shown = {each.id for each in (*keys.MAIN, *keys.EVERYWHERE) if each.show}
    assert shown == set(keys.FOOTER)
