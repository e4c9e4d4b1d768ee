"""The palette: every key of the screen by its words, every agent and feature by its name."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from textual.binding import Binding
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.markup import escape
from textual.screen import ModalScreen, Screen
from textual.types import IgnoreReturnCallbackType

from autocoder.core.logs import sanitise
from autocoder.core.models import Feature, FeatureStatus
from autocoder.tui import keys
from autocoder.tui.matching import match
from autocoder.tui.screens.confirm import key_of
from autocoder.tui.screens.main import MainScreen

Entry = tuple[str, str, IgnoreReturnCallbackType]
MOST_FEATURES = 500


class PanelCommands(Provider):
    async def discover(self) -> Hits:
        for name, words, run in self._keys():
            yield DiscoveryHit(escape(name), run, help=escape(words))

    async def search(self, query: str) -> Hits:
        for name, words, run in (*self._keys(), *self._agents(), *self._features()):
            found, beside = match(query, name), match(query, words)
            if score := max(found.score, beside.score):
                shown = Content(name)
                for at in found.positions:
                    shown = shown.stylize(self.match_style or "reverse", at, at + 1)
                # Names of features are not ours: what looks like markup is text.
                yield Hit(score, shown, run, text=name, help=escape(words))

    def _keys(self) -> Iterator[Entry]:
        for binding in (*_explained(self.screen), *keys.EVERYWHERE):
            everywhere = binding in keys.EVERYWHERE
            if binding.action == "palette" or not (
                everywhere or self.screen.check_action(binding.action, ())
            ):
                continue
            own = key_of(self.screen, binding.action)
            shown = binding if own in ("", *binding.key.split(",")) else binding.with_key(own)
            place = self.app if everywhere else self.screen
            run = partial(place.run_action, binding.action)
            yield binding.tooltip, f"{binding.description}   {keys.shown_key(shown)}", run

    def _agents(self) -> Iterator[Entry]:
        if not isinstance(self.screen, MainScreen) or self.screen.snapshot is None:
            return
        for agent in self.screen.snapshot.agents:
            run = partial(self.screen.go_to, agent.agent_id)
            yield f"Go to {sanitise(agent.agent_id)}", sanitise(agent.feature), run

    def _features(self) -> Iterator[Entry]:
        if not isinstance(self.screen, MainScreen) or self.screen.snapshot is None:
            return
        # A list of ten thousand hits would take seconds at each letter.
        open_first = sorted(self.screen.snapshot.backlog, key=_is_done)
        for feature in open_first[:MOST_FEATURES]:
            run = partial(self.screen.go_to_feature, feature.id)
            yield f"Go to feature {feature.id}", sanitise(feature.name), run


def _is_done(feature: Feature) -> bool:
    return feature.status is FeatureStatus.DONE


def _explained(screen: Screen[Any]) -> Iterator[Binding]:
    """The keys of a screen that say what they do; a dialog's are written on it."""
    for each in () if isinstance(screen, ModalScreen) else screen.BINDINGS:
        if isinstance(each, Binding) and each.tooltip:
            yield each
