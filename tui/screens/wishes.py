"""The keys of the main screen that ask the engine for something, and the questions before."""

from autocoder.core.commands import (
    Command,
    KillAgent,
    MergeFeature,
    Pause,
    RecoverAgent,
    RecoverAll,
    Resume,
    SpawnAgent,
    StopAgent,
    TellAgent,
)
from autocoder.tui import render
from autocoder.tui.messages import QuitRequested, SettingsRequested
from autocoder.tui.screens.confirm import ConfirmScreen, Question, merge_question
from autocoder.tui.screens.fleet import FleetScreen
from autocoder.tui.spans import counted


class Wishes(FleetScreen):
    def action_spawn(self) -> None:
        self.want(SpawnAgent())

    def action_spawn_typed(self) -> None:
        # A dialog is imported with its first use: together they would hold up the first paint.
        from autocoder.tui.screens.spawn import SpawnScreen

        if self.snapshot is not None:
            self.app.push_screen(SpawnScreen(self.snapshot), self._spawn)

    def _spawn(self, command: SpawnAgent | None) -> None:
        self.want(*([command] if command else []))

    def action_stop(self) -> None:
        self._end("stop", StopAgent)

    def action_kill(self) -> None:
        self._end("kill", KillAgent)

    def _end(self, verb: str, command: type[StopAgent | KillAgent]) -> None:
        key = self.key_of(verb)
        targets = [agent for agent in self.targets if agent.live]
        if not targets:
            self.say(
                f"{key} {verb}s live agents; this one has ended"
                if self.targets
                else f"{key} {verb}s live agents; there is none"
            )
            return
        question = Question(
            title=f"{verb.capitalize()} {counted(len(targets), 'agent')}?",
            body=render.target_lines(targets),
            verb=f"{verb}s",
            otherwise="keeps",
            key=key,
        )
        self._confirm(question, tuple(command(agent.agent_id) for agent in targets))

    def action_tell(self) -> None:
        from autocoder.tui.screens.tell import TellScreen

        live = [agent for agent in self.targets if agent.live]
        if not live:
            self.say(f"{self.key_of('tell')} tells a running agent something; here is none")
            return

        def tell(text: str | None) -> None:
            if text:
                self.want(*(TellAgent(agent.agent_id, text) for agent in live))

        self.app.push_screen(TellScreen(live), tell)

    def action_recover(self) -> None:
        targets = self.targets
        commands = tuple(RecoverAgent(agent.agent_id) for agent in targets)
        if not targets:
            self.say(f"{self.key_of('recover')} recovers an agent; there is none")
        elif not any(agent.live for agent in targets):
            self.want(*commands)
        else:
            question = Question(
                title=f"Recover {counted(len(targets), 'agent')}, killing what still lives?",
                body=render.target_lines(targets),
                verb="recovers",
                otherwise="leaves all as it is",
                key=self.key_of("recover"),
            )
            self._confirm(question, commands)

    def action_recover_all(self) -> None:
        if self.snapshot is None or not self.snapshot.recovery:
            key = self.key_of("recover_all")
            self.say(f"{key} recovers what nobody looks after; there is nothing")
            return
        question = Question(
            title="Recover all of this?",
            body=render.recovery_lines(self.snapshot),
            verb="recovers",
            otherwise="leaves all as it is",
            key=self.key_of("recover_all"),
        )
        self._confirm(question, (RecoverAll(),))

    def action_merge(self) -> None:
        if self.snapshot is None:
            return
        ids = {agent.feature_id for agent in self.targets}
        features = [each for each in self.snapshot.backlog if each.id in ids and each.mergeable]
        if not features:
            self.say(f"{self.key_of('merge')} merges a finished branch; here is none to merge")
            return
        question = merge_question(features, self.snapshot.base, self.key_of("merge"))
        self._confirm(question, tuple(MergeFeature(each.id) for each in features))

    def _confirm(self, question: Question, commands: tuple[Command, ...]) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self.want(*commands)

        self.app.push_screen(ConfirmScreen(question), answered)

    def action_expand(self) -> None:
        from autocoder.tui.screens.expand import ExpandScreen

        if self.snapshot is None:
            return
        self.app.push_screen(ExpandScreen(self.snapshot.pools), self._extend)

    def _extend(self, commands: tuple[Command, ...] | None) -> None:
        self.want(*(commands or ()))

    def action_pause(self) -> None:
        if self.snapshot is not None:
            self.want(Resume() if self.snapshot.paused else Pause())

    def action_take_settings(self) -> None:
        self.post_message(SettingsRequested())

    def action_quit(self) -> None:
        self.post_message(QuitRequested(stop_agents=False))

    def action_stop_all(self) -> None:
        live = [agent for agent in self.snapshot.agents if agent.live] if self.snapshot else []
        if not live:
            self.post_message(QuitRequested(stop_agents=True))
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.post_message(QuitRequested(stop_agents=True))

        question = Question(
            title=f"Stop all {counted(len(live), 'agent')} and quit?",
            body=render.target_lines(live),
            verb="stops them",
            otherwise="stays",
            key=self.key_of("stop_all"),
        )
        self.app.push_screen(ConfirmScreen(question), answered)
