"""The keys of the main screen that lead out of the panel, and how it looks itself."""

import os
from collections.abc import Mapping
from pathlib import Path

from textual.app import SuspendNotSupported

from autocoder.tui import outside, render
from autocoder.tui.palette import THEMES
from autocoder.tui.screens.fleet import FleetScreen
from autocoder.tui.screens.sheet import SheetScreen


class Beside(FleetScreen):
    def action_copy(self) -> None:
        found = outside.urls(self.selected) if self.selected else ()
        self._copy(found[0] if found else "", "y copies a URL; here is none")

    def action_ssh(self) -> None:
        line = outside.ssh_line(self.targets, os.environ, os.uname().nodename)
        self._copy(line, "no ports to forward")

    def _copy(self, text: str, otherwise: str) -> None:
        if text:
            self.app.copy_to_clipboard(text)
        self.say(f"copied  {text}" if text else otherwise)

    def action_urls(self) -> None:
        if not self.targets:
            self.say(f"{self.key_of('urls')} shows an agent's URLs; there is none")
            return
        self.app.push_screen(SheetScreen("urls", render.urls_page(self.targets)))

    def action_shell(self) -> None:
        agent = self.selected
        if agent is None or not agent.worktree_path or not Path(agent.worktree_path).is_dir():
            self.say("$ opens a shell in a worktree; here is none")
            return
        env = outside.agent_environment(agent, os.environ)
        self._run_outside(outside.shell(os.environ), Path(agent.worktree_path), env)

    def action_editor(self) -> None:
        agent = self.selected
        if agent is None or not agent.log_path or not Path(agent.log_path).is_file():
            self.say("E opens a log in the editor; here is none")
            return
        log = Path(agent.log_path)
        self._run_outside(outside.editor(os.environ, log), log.parent, os.environ)

    def _run_outside(self, argv: list[str], folder: Path, env: Mapping[str, str]) -> None:
        try:
            with self.app.suspend():
                complaint = outside.run_in_terminal(argv, cwd=folder, env=env)
        except SuspendNotSupported:
            complaint = "this terminal cannot be handed over"
        if complaint:
            self.say(complaint)

    def action_palette(self) -> None:
        self.app.action_command_palette()

    def action_theme(self) -> None:
        names = [theme.name for theme in THEMES]
        at = names.index(self.app.theme) if self.app.theme in names else -1
        self.app.theme = names[(at + 1) % len(names)]
