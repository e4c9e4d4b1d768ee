"""Claims about settings that change while the panel runs: nothing is taken over unasked."""

import queue
from pathlib import Path

import pytest

from autocoder.core.commands import Pause, SpawnAgent
from autocoder.core.errors import UsageError
from autocoder.core.settings import PROJECT_FILE, Settings, load_settings
from autocoder.tui.engine_thread import EngineThread
from autocoder.tui.live_settings import LiveSettings
from autocoder.tui.question_thread import QuestionThread
from support.answers import Answers
from support.fake_engine import RecordingEngine
from support.panel import driven
from support.snapshots import a_snapshot, an_agent
from support.waiting import wait_until

FLEET = a_snapshot(an_agent(1))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / PROJECT_FILE


@pytest.fixture
def live(file: Path) -> LiveSettings:
    def read() -> Settings:
        user = file.with_name("none.toml")
        return load_settings(file.parent, environ={}, user_config=user)

    return LiveSettings(read(), read)


def test_a_change_is_said_and_offered_and_its_withdrawal_takes_the_offer_back(
    live: LiveSettings, file: Path
) -> None:
    assert live.look() == ""
    file.write_text("parallel = 5\n")
    assert "parallel 3 → 5" in live.look()
    assert live.offered is not None
    file.unlink()
    assert live.look() == ""
    assert live.offered is None


@pytest.mark.parametrize("text", ["parallel = ", 'parallel = "many"', "parallels = 5"])
def test_a_file_that_cannot_be_used_is_named_and_offers_nothing(
    live: LiveSettings, file: Path, text: str
) -> None:
    file.write_text(text)
    said = live.look()
    assert PROJECT_FILE in said
    assert "settings stay as they were" in said
    assert live.offered is None


def test_a_file_that_is_mended_is_said_to_be(live: LiveSettings, file: Path) -> None:
    file.write_text("parallel = ")
    assert live.look() == live.refusal() == live.note()
    file.write_text("parallel = 3\n")
    assert "can be read again" in live.look()
    assert live.look() == live.note() == ""


def test_where_the_agents_state_is_kept_needs_a_restart(live: LiveSettings, file: Path) -> None:
    file.write_text('parallel = 5\nledger_url = "sqlite:////tmp/elsewhere.db"\n')
    assert "ledger_url needs a restart" in live.look()
    assert live.offered is None


def test_settings_that_no_engine_can_open_with_leave_those_from_before(
    live: LiveSettings, file: Path
) -> None:
    file.write_text("parallel = 5\n")
    live.look()
    tried: list[int] = []
    said: list[str] = []
    live.complain = said.append

    def opening(settings: Settings) -> int:
        tried.append(settings.parallel)
        if settings.parallel == 5:
            raise UsageError("five is right out")
        return settings.parallel

    assert live.open(opening) == 3
    assert tried == [5, 3]
    assert live.current.parallel == 3
    assert said == ["the settings stay as they were: five is right out"]


def test_an_engine_is_opened_anew_and_wishes_in_between_reach_the_next_one() -> None:
    engines = [RecordingEngine(FLEET), RecordingEngine(FLEET)]
    waiting = iter(engines)
    opened: list[RecordingEngine] = []

    def open_engine() -> RecordingEngine:
        opened.append(next(waiting))
        return opened[-1]

    published: list[object] = []
    ended: list[BaseException | None] = []
    thread = EngineThread(open_engine)
    thread.start(published.append, ended.append)
    wait_until(lambda: len(published) == 1)
    thread.submit(SpawnAgent())
    thread.reopen()
    thread.submit(Pause())
    wait_until(lambda: len(published) == 2)
    assert ended == []
    assert [*engines[0].asked, *engines[1].asked] == [SpawnAgent(), Pause()]
    thread.stop()
    thread.join()
    wait_until(lambda: ended == [None])


async def test_settings_of_another_process_are_not_taken_over_here(
    live: LiveSettings, file: Path
) -> None:
    live.run_by = lambda: "pid 4711 on /dev/pts/3"
    file.write_text("parallel = 5\n")
    known = {"settings": live, "settings_files": (file,), "questions": Answers()}
    async with driven(FLEET, **known) as run:  # type: ignore[arg-type]
        await run.shows("the settings' files have changed, and are not in force: parallel 3 → 5")
        await run.press("U")
        await run.shows("only pid 4711 on /dev/pts/3 can take them over")
        assert not run.engine.stopped
        assert live.offered is not None
        await run.press("comma")
        await run.shows("in force are the settings of the orchestrator, pid 4711 on /dev/pts/3")


async def test_a_read_only_panel_is_offered_no_key_that_it_lacks(
    live: LiveSettings, file: Path
) -> None:
    file.write_text("parallel = 5\n")
    async with driven(FLEET, settings=live, settings_files=(file,), read_only=True) as run:
        await run.shows("the settings' files have changed, and are not in force: parallel 3 → 5")


async def test_an_attached_panel_says_so_at_its_start(live: LiveSettings) -> None:
    live.run_by = lambda: "pid 4711 on /dev/pts/3"
    async with driven(FLEET, settings=live) as run:
        await run.shows("attached to the orchestrator: pid 4711 on /dev/pts/3")


async def test_an_attached_panel_says_who_comes_after_an_orchestrator_that_is_gone(
    live: LiveSettings,
) -> None:
    live.run_by = lambda: "pid 4711 on /dev/pts/3"
    async with driven(FLEET, settings=live) as run:
        await run.shows("pid 4711")
        live.run_by = lambda: "pid 4712 on /dev/pts/4"
        await run.publish(FLEET)
        await run.shows("attached to the orchestrator: pid 4712 on /dev/pts/4")
        live.run_by = str
        await run.publish(FLEET)
        await run.shows("this panel is the orchestrator now; the one before is gone: pid 4712")


def test_questions_are_answered_with_the_settings_in_force(live: LiveSettings, file: Path) -> None:
    thread = QuestionThread(lambda: live.current)  # type: ignore[arg-type,return-value]
    live.taken = thread.reopen
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()

    def parallel() -> object:
        thread.ask(lambda settings: settings, lambda answer: answers.put(answer.result()))
        return answers.get(timeout=10)

    assert parallel() is live.current
    file.write_text("parallel = 5\n")
    live.look()
    before = live.current
    assert parallel() is before
    live.open(lambda settings: settings)
    assert parallel() is live.current is not before
    thread.stop()


async def test_the_panel_says_what_changed_and_takes_it_over_when_asked(
    live: LiveSettings, file: Path
) -> None:
    file.write_text("parallel = 5\n")
    async with driven(FLEET, settings=live, settings_files=(file,)) as run:
        await run.shows("U takes over changed settings, agents keep running: parallel 3 → 5")
        file.write_text("parallel = no\n")
        await run.shows("settings stay as they were")
        file.unlink()
        await run.shows("can be read again")
        await run.press("U")
        await run.shows("say nothing new")
