"""The keys that apply now, from the bindings of whatever has the focus."""

from textual import events
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Input

from autocoder.tui.keys import FOOTER, shown_key
from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, width_of
from autocoder.tui.widgets.painted import TextLines

ORDER = {name: at for at, name in enumerate(FOOTER)}


class KeyBar(TextLines):
    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._on_bindings_updated)
        self.call_after_refresh(self.tell)

    def on_resize(self, _event: events.Resize) -> None:
        self.tell()

    def _on_bindings_updated(self, _screen: Screen[object]) -> None:
        self.call_after_refresh(self.tell)

    def tell(self) -> None:
        """Show as many keys as fit; those that lead back, to the help and out always do."""
        if not self.is_attached:
            return
        shown: dict[str, Line] = {}
        found = self.screen.active_bindings.values()
        # What has the focus first; a key of the user's own keeps the place of the one it is for.
        for active in sorted(found, key=lambda each: ORDER.get(each.binding.id or "", -1)):
            binding = active.binding
            if self._is_typed(binding):
                continue
            if binding.show and active.enabled and binding.action not in shown:
                key = (shown_key(binding), Tone.ACCENT)
                shown[binding.action] = (key, (f" {binding.description}", Tone.DIM))
        last = [shown.pop(action) for action in ("back", "help", "quit") if action in shown]
        room = self.size.width - 2 - sum(width_of(piece) + 2 for piece in last)
        line: list[tuple[str, Tone]] = [(" ", Tone.PLAIN)]
        for piece in shown.values():
            room -= width_of(piece) + 2
            if room < 0:
                break
            line += [*piece, ("  ", Tone.PLAIN)]
        for piece in last:
            line += [*piece, ("  ", Tone.PLAIN)]
        self.lines = (tuple(line),)

    def _is_typed(self, binding: Binding) -> bool:
        """Whether the key is a letter of what is being typed; Textual forgets the slash."""
        key = shown_key(binding)
        return isinstance(self.screen.focused, Input) and len(key) == 1 and key.isascii()
