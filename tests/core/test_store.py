"""Features and agents in the project database."""

import contextlib
import json
import multiprocessing
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autocoder.core.errors import DatabaseError, RefusedError, UsageError
from autocoder.core.models import AgentState, Feature, FeatureStatus, Severity
from autocoder.core.store import (
    AgentRecord,
    Failed,
    FeatureDraft,
    FeatureOutcome,
    Finished,
    NewAgent,
    NewEvent,
    ProjectStore,
    Requeued,
)
from autocoder.core.store.journal import EVENTS_KEPT
from support.seed_checks import violations

START = 1_800_000_000.0
DONE = Finished("feat/1-x", merged=True)


@dataclass
class Clock:
    at: float = START

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent_system.db"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[ProjectStore]:
    store = ProjectStore(path, now=clock)
    yield store
    store.close()


def new_agent(agent_id: str, port: int = 5000) -> NewAgent:
    return NewAgent(
        agent_id=agent_id,
        api_port=port,
        web_port=port + 173,
        epoch=port,
        branch=f"feat/{agent_id}",
        backend="scripted",
        worktree_path=f"/worktrees/{agent_id}",
        log_path=f"/logs/{agent_id}",
    )


def add(store: ProjectStore, *drafts: FeatureDraft) -> list[int]:
    return [feature.id for feature in store.add_features(drafts)]


def attempt(store: ProjectStore, feature_id: int, outcome: FeatureOutcome) -> Feature:
    """A whole agent on the feature, whose back-off is not waited for."""
    agent_id = store.free_agent_id()
    assert store.claim(feature_id, new_agent(agent_id), requested=True)
    state = AgentState.COMPLETED if isinstance(outcome, Finished) else AgentState.FAILED
    feature = store.end_agent(agent_id, state=state, exit_code=0, reason="", outcome=outcome)
    assert feature
    return feature


def failed(key: str, diff: str = "", limit: int = 10) -> Failed:
    return Failed(f"error {key}", key, START, attempts_limit=limit, diff_fingerprint=diff)


def test_the_highest_priority_is_claimed_first_then_the_lowest_id(store: ProjectStore) -> None:
    low, first, second = add(
        store, FeatureDraft("low", priority=-1), FeatureDraft("a"), FeatureDraft("b")
    )
    high = add(store, FeatureDraft("high", priority=5))[0]

    assert [feature.id for feature in store.features()] == [high, first, second, low]
    claimed = store.next_claimable()
    assert claimed
    assert claimed.id == high


def test_a_feature_comes_back_as_it_was_put_in(store: ProjectStore) -> None:
    draft = FeatureDraft(
        "Log in; DROP TABLE '\"",
        description="ünïcode\nand lines",
        steps=("one", "two"),
        category="functional",
        priority=7,
        enabled=False,
        backend="codex",
        model="gpt",
        base="release",
    )
    (feature,) = store.add_features([draft])

    assert feature == Feature(
        id=feature.id,
        name=draft.name,
        description=draft.description,
        steps=draft.steps,
        category="functional",
        priority=7,
        enabled=False,
        backend="codex",
        model="gpt",
        base="release",
    )
    assert store.feature(feature.id) == feature
    assert store.features() == (feature,)


def test_variants_of_one_task_know_their_first(store: ProjectStore) -> None:
    add(store, FeatureDraft("other"))

    variants = store.add_variants(FeatureDraft("try", backend="claude"), 3)

    assert [feature.variant_of for feature in variants] == [variants[0].id] * 3
    assert {(feature.name, feature.backend) for feature in variants} == {("try", "claude")}
    assert store.features()[1:] == variants


def test_dependencies_are_named_by_position_by_name_and_by_id(store: ProjectStore) -> None:
    (old,) = add(store, FeatureDraft("old"))
    ids = add(
        store,
        FeatureDraft("by id and name", depends_on=(old, "later")),
        FeatureDraft("later", depends_on=("old",)),
        FeatureDraft("by position", after=(0, 1)),
    )

    needs = {feature.id: feature.depends_on for feature in store.features()}
    assert needs == {old: (), ids[0]: (old, ids[1]), ids[1]: (old,), ids[2]: (ids[0], ids[1])}


@pytest.mark.parametrize(
    ("drafts", "complaint"),
    [
        ([FeatureDraft("  ")], "needs a name"),
        ([FeatureDraft("a", depends_on=("nothing",))], "'nothing', which is no feature"),
        ([FeatureDraft("a", depends_on=(99,))], "99, which is no feature"),
        ([FeatureDraft("a", after=(1,))], "not in the list"),
        ([FeatureDraft("a", after=(0,))], "depends on itself"),
        (
            [FeatureDraft("a", after=(1,)), FeatureDraft("b", after=(0,))],
            "in a circle: (a → b → a|b → a → b)",
        ),
        (
            [FeatureDraft("b"), FeatureDraft("b"), FeatureDraft("a", depends_on=("b",))],
            "several features",
        ),
    ],
)
def test_drafts_that_make_no_sense_are_refused_all_together(
    store: ProjectStore, drafts: list[FeatureDraft], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        store.add_features([FeatureDraft("good"), *shifted(drafts)])
    with pytest.raises(UsageError, match=complaint):
        store.check_features([FeatureDraft("good"), *shifted(drafts)])
    assert store.features() == ()


def shifted(drafts: list[FeatureDraft]) -> list[FeatureDraft]:
    """The same drafts behind one more."""
    return [
        FeatureDraft(d.name, depends_on=d.depends_on, after=tuple(i + 1 for i in d.after))
        for d in drafts
    ]


def test_a_feature_waits_until_what_it_depends_on_is_done_and_merged(store: ProjectStore) -> None:
    first, second = add(store, FeatureDraft("first"), FeatureDraft("second", after=(0,)))
    assert not store.claim(second, new_agent("early"), requested=True)

    attempt(store, first, Finished("feat/1", merged=False))
    assert store.next_claimable() is None
    store.set_merged(first)

    claimable = store.next_claimable()
    assert claimable
    assert claimable.id == second


def test_once_one_variant_is_merged_the_others_are_not_chosen_and_keep_their_branches(
    store: ProjectStore,
) -> None:
    first, second, third = (v.id for v in store.add_variants(FeatureDraft("Try it"), 3))
    other, waiting = add(store, FeatureDraft("other"), FeatureDraft("after", depends_on=(first,)))
    for feature_id in (first, second, other):
        attempt(store, feature_id, Finished(f"feat/{feature_id}", merged=False))

    assert store.set_merged(second) == (f"feat/{first}",)
    attempt(store, third, Finished("feat/late", merged=False))

    reviews = {each.id: each.review_status for each in store.features()}
    assert reviews[first] == reviews[third] == "NOT_CHOSEN"
    assert reviews[second] == "VERIFIED"
    assert [each.id for each in store.features() if each.awaits_merge] == [other]
    assert store.feature(first).branch_name == f"feat/{first}"
    claimable = store.next_claimable()
    assert claimable
    assert claimable.id == waiting


def test_a_feature_that_is_switched_off_is_not_claimed_by_itself(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("off", enabled=False))

    assert store.next_claimable() is None
    assert not store.claim(feature_id, new_agent("a-1"))
    assert store.claim(feature_id, new_agent("a-1"), requested=True)


def test_a_failed_feature_waits_for_its_back_off(store: ProjectStore, clock: Clock) -> None:
    first, second = add(store, FeatureDraft("first"), FeatureDraft("second", after=(0,)))
    attempt(store, first, Failed("no", "no", retry_at=START + 10.25))

    assert store.next_claimable() is None
    assert not store.claim(first, new_agent("a-9"))
    assert store.awaits_work()
    assert not store.awaits_work(without=[first])
    clock.at = START + 10.25
    claimable = store.next_claimable()
    assert claimable
    assert claimable.id == first
    assert store.awaits_work()
    assert store.feature(second).status is FeatureStatus.PENDING


def test_a_human_need_not_wait_for_the_back_off(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("first"))
    attempt(store, feature_id, Failed("no", "no", retry_at=START + 600))

    assert store.claim(feature_id, new_agent("a-9"), requested=True)


def test_a_feature_is_blocked_at_the_limit_of_its_attempts(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("hard"))

    seen = [attempt(store, feature_id, failed(f"{n}", limit=4)).status.value for n in range(4)]

    assert seen == ["PENDING", "PENDING", "PENDING", "BLOCKED"]
    assert store.feature(feature_id).attempts == 4
    assert store.feature(feature_id).last_error == "error 3"


def test_the_same_error_three_times_in_a_row_blocks_a_feature(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("hard"))

    seen = [attempt(store, feature_id, failed(key)).status.value for key in "aabaaa"]

    assert seen == ["PENDING"] * 5 + ["BLOCKED"]


def test_the_same_diff_three_times_in_a_row_blocks_a_feature(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("hard"))

    seen = [attempt(store, feature_id, failed(key, diff="d")).status.value for key in "abc"]

    assert seen == ["PENDING", "PENDING", "BLOCKED"]


def test_being_requeued_costs_no_attempt(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("unlucky"))
    for _ in range(20):
        feature = attempt(store, feature_id, Requeued("no port was free"))

    assert (feature.status, feature.attempts) == (FeatureStatus.PENDING, 0)
    assert store.next_claimable() == feature


def test_a_blocked_feature_can_be_tried_again_from_the_start(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("hard"))
    for _ in range(3):
        attempt(store, feature_id, failed("same"))

    feature = store.retry_feature(feature_id)

    assert (feature.status, feature.attempts) == (FeatureStatus.PENDING, 0)
    assert attempt(store, feature_id, failed("same")).status is FeatureStatus.PENDING


def test_what_is_in_progress_or_done_is_not_retried(store: ProjectStore) -> None:
    running, done = add(store, FeatureDraft("running"), FeatureDraft("done"))
    store.claim(running, new_agent("a-1"))
    attempt(store, done, DONE)

    for feature_id, word in ((running, "in progress"), (done, "done")):
        with pytest.raises(RefusedError, match=word):
            store.retry_feature(feature_id)


def test_a_merge_conflict_sends_a_done_feature_back(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("clash"))
    attempt(store, feature_id, Finished("feat/1-clash", merged=False))

    feature = store.settle_feature(feature_id, failed("merge conflict"))

    assert (feature.status, feature.branch_name) == (FeatureStatus.PENDING, "feat/1-clash")
    assert feature.review_status == ""


def test_a_feature_under_work_is_settled_by_its_agent_only(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("busy"))
    store.claim(feature_id, new_agent("a-1"))

    with pytest.raises(RefusedError, match="a-1 works on feature"):
        store.settle_feature(feature_id, DONE)


def test_features_that_can_never_run_say_why(store: ProjectStore) -> None:
    blocked, off, unmerged, fine = add(
        store,
        FeatureDraft("blocked"),
        FeatureDraft("off", enabled=False),
        FeatureDraft("unmerged"),
        FeatureDraft("fine"),
    )
    ids = add(
        store,
        FeatureDraft("1", depends_on=(blocked,)),
        FeatureDraft("2", after=(0,)),
        FeatureDraft("3", depends_on=(off,)),
        FeatureDraft("4", depends_on=(unmerged,)),
        FeatureDraft("5", depends_on=(fine,)),
    )
    attempt(store, blocked, failed("x", limit=1))
    attempt(store, unmerged, Finished("feat/x", merged=False))

    assert {stuck.feature.id: stuck.why for stuck in store.stuck_features()} == {
        ids[0]: f"waits for feature {blocked}, which is blocked",
        ids[1]: f"waits for feature {blocked}, which is blocked",
        ids[2]: f"waits for feature {off}, which is switched off",
        ids[3]: f"waits for feature {unmerged}, which is not merged into base yet",
    }


def test_features_that_wait_for_each_other_are_stuck(store: ProjectStore, path: Path) -> None:
    one, two = add(store, FeatureDraft("one"), FeatureDraft("two", after=(0,)))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("INSERT INTO feature_dependencies VALUES (?, ?, NULL)", (one, two))
        other.commit()

    assert [stuck.why for stuck in store.stuck_features()] == [
        f"waits in a circle: {one} → {two} → {one}",
        f"waits in a circle: {two} → {one} → {two}",
    ]


def test_a_feature_that_has_not_changed_stays_the_same_object(store: ProjectStore) -> None:
    still, changing = add(store, FeatureDraft("still"), FeatureDraft("changing"))
    before = {feature.id: feature for feature in store.features()}
    store.set_priority(changing, 1)
    after = {feature.id: feature for feature in store.features()}

    assert after[still] is before[still]
    assert (before[changing].priority, after[changing].priority) == (0, 1)


def test_a_change_by_another_process_is_seen_at_once(store: ProjectStore, path: Path) -> None:
    (feature_id,) = add(store, FeatureDraft("shared"))
    before = store.features()
    assert store.features() is before

    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE features SET priority = 9")
        other.commit()

    assert [feature.priority for feature in store.features()] == [9]
    store.set_priority(feature_id, 3)
    assert [feature.priority for feature in store.features()] == [3]


def test_an_unknown_feature_is_named(store: ProjectStore) -> None:
    for ask in (store.feature, store.retry_feature):
        with pytest.raises(UsageError, match="no feature 42"):
            ask(42)
    with pytest.raises(UsageError, match="no feature 42"):
        store.set_enabled(42, True)


def test_odd_values_of_another_program_start_nothing(store: ProjectStore, path: Path) -> None:
    (feature_id,) = add(store, FeatureDraft("odd"))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(
            "UPDATE features SET status = 'wat', steps = '{not json', next_attempt_at = 'soon', "
            "priority = 'high', assigned_agent_id = 7"
        )
        other.commit()

    (feature,) = store.features()
    assert (feature.id, feature.status) == (feature_id, FeatureStatus.BLOCKED)
    assert (feature.steps, feature.next_attempt_at) == (("{not json",), None)
    assert store.next_claimable() is None


def test_an_agent_is_on_record_before_its_worker_runs(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("login"))

    assert store.claim(feature_id, new_agent("a-0001"))

    assert store.live_agents() == (
        AgentRecord(
            agent_id="a-0001",
            state=AgentState.STARTING,
            feature_id=feature_id,
            feature="login",
            backend="scripted",
            branch="feat/a-0001",
            worktree_path="/worktrees/a-0001",
            log_path="/logs/a-0001",
            api_port=5000,
            web_port=5173,
            epoch=5000,
            pid=None,
            pid_start=None,
            boot_id="",
            create_time=None,
            started_at=START,
            last_ping=None,
        ),
    )
    feature = store.feature(feature_id)
    assert (feature.status, feature.agent_id) == (FeatureStatus.IN_PROGRESS, "a-0001")


def test_a_feature_is_claimed_once_by_whoever_comes_first(store: ProjectStore, path: Path) -> None:
    (feature_id,) = add(store, FeatureDraft("wanted"))
    rivals = 8
    barrier = threading.Barrier(rivals)
    won: list[int] = []

    def claim(number: int) -> None:
        rival = ProjectStore(path)
        barrier.wait(10)
        if rival.claim(feature_id, new_agent(f"a-{number}", 5000 + number)):
            won.append(number)
        rival.close()

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(rivals)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert [agent.agent_id for agent in store.live_agents()] == [f"a-{won[0]}"]


def test_an_ended_agent_is_history_with_the_ports_it_had(store: ProjectStore, clock: Clock) -> None:
    (feature_id,) = add(store, FeatureDraft("login"))
    store.claim(feature_id, new_agent("a-1"))
    store.set_worker("a-1", pid=99, pid_start=12345, boot_id="b", create_time=1.5)
    clock.at += 60
    store.end_agent(
        "a-1",
        state=AgentState.COMPLETED,
        exit_code=0,
        reason="done",
        outcome=DONE,
        eaddrinuse=2,
    )

    (ended,) = store.history(10)
    assert store.live_agents() == ()
    assert (ended.state, ended.api_port, ended.web_port) == (AgentState.COMPLETED, 5000, 5173)
    assert (ended.pid, ended.pid_start, ended.boot_id) == (99, 12345, "b")
    assert (ended.ended_at, ended.exit_code, ended.reason) == (START + 60, 0, "done")
    assert (ended.eaddrinuse, ended.live, ended.feature) == (2, False, "login")
    assert store.agent("a-1") == ended
    feature = store.feature(feature_id)
    assert (feature.status, feature.agent_id) == (FeatureStatus.DONE, "")
    assert feature.review_status == "VERIFIED"


def test_a_heartbeat_changes_no_state_and_revives_nobody(store: ProjectStore, clock: Clock) -> None:
    one, two = add(store, FeatureDraft("one"), FeatureDraft("two"))
    store.claim(one, new_agent("a-1"))
    store.claim(two, new_agent("a-2", 5001))
    store.set_state("a-2", AgentState.STOPPING)
    store.end_agent("a-1", state=AgentState.KILLED, exit_code=-9, reason="", outcome=DONE)

    store.beat({"a-1": START + 5, "a-2": 1e18, "a-99": START + 5})
    store.beat({"a-2": START + 5})

    (live,) = store.live_agents()
    assert (live.agent_id, live.state, live.last_ping) == ("a-2", AgentState.STOPPING, START + 5)
    (ended,) = store.history(10)
    assert (ended.state, ended.last_ping) == (AgentState.KILLED, None)


def test_an_ended_agent_cannot_be_changed_or_ended_again(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("one"))
    store.claim(feature_id, new_agent("a-1"))
    end = {"exit_code": 0, "reason": "", "outcome": DONE}
    store.end_agent("a-1", state=AgentState.COMPLETED, exit_code=0, reason="", outcome=DONE)

    with pytest.raises(RefusedError, match="a-1 is not live"):
        store.set_state("a-1", AgentState.ACTIVE)
    with pytest.raises(RefusedError, match="a-1 is not live"):
        store.set_worker("a-1", pid=1, pid_start=1, boot_id="", create_time=1.0)
    with pytest.raises(RefusedError, match="a-1 is not live"):
        store.end_agent("a-1", state=AgentState.FAILED, **end)  # type: ignore[arg-type]
    assert len(store.history(10)) == 1


def test_a_live_state_ends_nobody_and_a_final_one_is_not_set(store: ProjectStore) -> None:
    with pytest.raises(ValueError, match="ends an agent"):
        store.set_state("a-1", AgentState.CRASHED)
    with pytest.raises(ValueError, match="does not end"):
        store.end_agent("a-1", state=AgentState.ACTIVE, exit_code=0, reason="", outcome=DONE)


def test_the_outcome_of_an_agent_leaves_alone_what_was_given_to_another(
    store: ProjectStore, path: Path
) -> None:
    (feature_id,) = add(store, FeatureDraft("one"))
    store.claim(feature_id, new_agent("a-1"))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE features SET assigned_agent_id = 'a-2'")
        other.commit()

    feature = store.end_agent(
        "a-1", state=AgentState.CRASHED, exit_code=1, reason="", outcome=failed("x")
    )

    assert feature
    assert (feature.status, feature.agent_id) == (FeatureStatus.IN_PROGRESS, "a-2")
    assert feature.attempts == 0


def test_the_worktree_of_an_ended_agent_can_be_noted_as_gone(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("one"))
    store.claim(feature_id, new_agent("a-1"))
    store.end_agent("a-1", state=AgentState.COMPLETED, exit_code=0, reason="", outcome=DONE)

    store.clear_worktrees(["a-1"])

    assert store.agent("a-1").worktree_path == ""


def test_history_is_the_latest_first(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("one"))
    for _ in range(5):
        attempt(store, feature_id, Requeued(""))

    assert [agent.agent_id for agent in store.history(3)] == ["a-0005", "a-0004", "a-0003"]


def test_an_agent_id_that_was_claimed_is_never_given_again(store: ProjectStore, path: Path) -> None:
    (feature_id,) = add(store, FeatureDraft("one"))
    assert store.free_agent_id() == store.free_agent_id() == "a-0001"

    attempt(store, feature_id, Requeued(""))
    assert store.free_agent_id(lambda agent_id: agent_id in ("a-0002", "a-0003")) == "a-0004"
    store.claim(feature_id, new_agent("a-0004"))
    again = ProjectStore(path)
    assert again.free_agent_id() == "a-0005"
    again.close()


def test_agents_of_dead_workers_are_moved_and_unknown_ones_stay(store: ProjectStore) -> None:
    ids = add(store, *(FeatureDraft(name) for name in ("alive", "dead", "unknown", "orphan")))
    for number, feature_id in enumerate(ids):
        store.claim(feature_id, new_agent(f"a-{number}", 5000 + number))
    store.end_agent("a-3", state=AgentState.KILLED, exit_code=1, reason="", outcome=Requeued(""))
    answers = {"a-0": True, "a-1": False, "a-2": None}

    moved = store.reconcile(lambda agent: answers[agent.agent_id])

    assert [agent.agent_id for agent in moved] == ["a-1"]
    assert [agent.agent_id for agent in store.live_agents()] == ["a-0", "a-2"]
    assert store.agent("a-1").state is AgentState.CRASHED
    states = [store.feature(feature_id).status.value for feature_id in ids]
    assert states == ["IN_PROGRESS", "PENDING", "IN_PROGRESS", "PENDING"]
    assert store.feature(ids[1]).attempts == 0


def churn(path: Path, first_port: int, rounds: int) -> None:
    store = ProjectStore(path)
    for number in range(rounds):
        feature = store.next_claimable()
        agent_id = f"{first_port}-{number}"
        if feature and store.claim(feature.id, new_agent(agent_id, first_port + number % 3)):
            store.set_state(agent_id, AgentState.ACTIVE)
            store.beat({agent_id: START})
            outcome = (Requeued(""), DONE, failed("x"))[number % 3]
            state = (AgentState.KILLED, AgentState.COMPLETED, AgentState.FAILED)[number % 3]
            store.end_agent(agent_id, state=state, exit_code=0, reason="", outcome=outcome)
    store.close()


def test_the_seeds_checks_hold_at_every_moment(store: ProjectStore, path: Path) -> None:
    add(store, *(FeatureDraft(f"f{number}") for number in range(200)))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=churn, args=(path, 5000 + 10 * n, 15)) for n in range(2)]
    for worker in workers:
        worker.start()
    looks, found = 0, []
    for worker in workers:
        while worker.is_alive():
            found += violations(path)
            looks += 1
            # A look keeps writers out; without a pause they would hardly get on.
            worker.join(0.005)

    assert [worker.exitcode for worker in workers] == [0, 0]
    assert found == []
    assert looks > 10
    assert len(store.history(1000)) == len({agent.agent_id for agent in store.history(1000)}) > 15


def test_events_come_back_oldest_first_from_where_one_left_off(store: ProjectStore) -> None:
    first = store.add_event(Severity.INFO, "spawned", "one", agent_id="a-1", feature_id=3)
    store.add_event(Severity.ERROR, "crashed", "two", data={"signal": 9})
    store.add_event(Severity.WARNING, "pool", "three")

    assert [event.message for event in store.events(2)] == ["two", "three"]
    second, _ = store.events(10, after_id=first)
    assert (second.level, second.data, second.at) == (Severity.ERROR, {"signal": 9}, START)
    assert (store.events(10)[0].agent_id, store.events(10)[0].feature_id) == ("a-1", 3)


def test_only_the_newest_events_are_kept(store: ProjectStore, path: Path) -> None:
    oldest = store.add_event(Severity.INFO, "notice", "the oldest")
    later = store.add_event(Severity.INFO, "notice", "later")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        # As if so many others had come in between.
        numbers = (oldest + EVENTS_KEPT - 2, later)
        connection.execute("UPDATE activity_events SET id = ? WHERE id = ?", numbers)
    store.add_event(Severity.INFO, "notice", "one more")
    assert store.events(10)[0].message == "the oldest"
    store.add_events([NewEvent(Severity.INFO, "notice", "one too many")])

    assert [event.message for event in store.events(10)] == ["later", "one more", "one too many"]


def test_a_setting_outlives_the_store(store: ProjectStore, path: Path) -> None:
    assert store.setting("paused") is None
    store.set_setting("paused", {"since": 1})
    store.set_setting("paused", [True])

    again = ProjectStore(path)
    assert again.setting("paused") == [True]
    again.close()


def test_half_characters_and_floods_are_cut_to_what_a_database_holds(store: ProjectStore) -> None:
    (feature_id,) = add(store, FeatureDraft("bad \udcff"))
    store.claim(feature_id, new_agent("a-1"))
    flood = Failed("\udcff" + "x" * 10_000_000, "k", START)
    store.end_agent("a-1", state=AgentState.FAILED, exit_code=1, reason="\ud800", outcome=flood)
    store.add_event(Severity.INFO, "x", "\udc80")

    assert len(store.feature(feature_id).last_error) < 100_000
    assert json.dumps(store.events(1)[0].message) == '"?"'


def test_an_agent_nobody_knows_is_named(store: ProjectStore) -> None:
    with pytest.raises(UsageError, match="no agent 'a-9'"):
        store.agent("a-9")


def test_a_damaged_file_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)

    with pytest.raises(DatabaseError) as refusal:
        ProjectStore(path)

    assert refusal.value.cause == "damaged"
    assert path.read_bytes() == b"not a database" * 1000
