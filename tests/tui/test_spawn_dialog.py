"""Claims about the dialog that spawns on what is typed: it says what one gets, or refuses."""

from dataclasses import replace

from textual.events import Key

from autocoder.core.commands import SpawnAgent
from autocoder.tui.screens.main import MainScreen
from autocoder.tui.screens.spawn import SpawnScreen
from support.answers import FORECAST, Answers
from support.panel import driven
from support.snapshots import a_snapshot, an_agent

FLEET = a_snapshot(an_agent(1))


async def test_backend_model_base_and_variants_are_chosen_field_by_field() -> None:
    async with driven(FLEET, questions=Answers()) as run:
        await run.press("N")
        await run.shows("feat/49-fix-login")
        await run.type("Fix login")
        await run.press("tab", "tab", "right", "tab")
        await run.type("opus")
        await run.press("tab")
        await run.type("dev")
        await run.press("tab", "right", "right", "enter")
        await run.until(lambda: run.asked)
        assert run.asked == [SpawnAgent(None, "Fix login", "claude", "opus", "dev", variants=3)]


async def test_it_says_which_pairs_and_branch_one_gets_and_who_must_wait() -> None:
    async with driven(FLEET, questions=Answers()) as run:
        await run.press("N")
        await run.shows("on 5014 and 5183")
        assert "from main to feat/49-fix-login" in run.screen
        await run.press("shift+tab", "right")
        await run.shows("5014 and 5183, 5015 and 5184")
        await run.press("right")
        await run.shows("1 variant must wait for ports")


async def test_a_backend_that_cannot_run_is_refused_with_the_remedy_and_the_words_stay() -> None:
    async with driven(FLEET, questions=Answers()) as run:
        await run.press("N")
        await run.shows("‹ scripted ›")
        await run.type("Fix login")
        await run.press("tab", "tab", "left", "enter")
        await run.shows("codex cannot run here: codex is not installed")
        assert "npm install" in run.screen
        assert "Fix login" in run.screen
        assert isinstance(run.panel.screen, SpawnScreen)
        await run.press("left", "enter")
        await run.until(lambda: run.asked)
        assert run.asked == [SpawnAgent(task="Fix login", backend="claude")]


async def test_an_unknown_base_or_an_empty_pool_starts_nothing() -> None:
    full = Answers(forecast=replace(FORECAST, refusal="no free pair of ports", pairs=()))
    for questions, base, why in (
        (Answers(), "nowhere", "there is no branch 'nowhere'"),
        (full, "", "no free pair of ports"),
    ):
        async with driven(FLEET, questions=questions) as run:
            await run.press("N")
            await run.type("Fix")
            await run.press("tab", "tab", "tab", "tab")
            await run.type(base)
            await run.press("enter")
            await run.shows(why)
            assert run.asked == []
            await run.press("escape")
            assert isinstance(run.panel.screen, MainScreen)


async def test_the_whole_dialog_fits_a_small_terminal() -> None:
    async with driven(FLEET, questions=Answers(), size=(80, 24)) as run:
        await run.press("N")
        await run.shows("variants")
        for said in ("details", "backend", "model", "base", "feat/49", "5014", "esc leaves"):
            assert said in run.screen


async def test_what_is_typed_right_behind_a_tab_goes_to_the_next_field() -> None:
    async with driven(FLEET, questions=Answers()) as run:
        await run.press("N")
        await run.shows("feat/49-fix-login")
        typed = [*"Fix", "tab", *"one", "ctrl+j", *"two", "enter", *"three"]
        for key in typed:  # as a slow link delivers them: all at once
            char = key if len(key) == 1 else {"ctrl+j": "\n", "tab": "\t"}.get(key)
            run.panel.post_message(Key(key, char))
        await run.shows("three")
        await run.shows("⏎ new line,")
        await run.press("tab")
        await run.shows("←→ choose,")
        await run.press("enter")
        await run.until(lambda: run.asked)
        assert run.asked == [SpawnAgent(task="Fix\none\ntwo\nthree")]
