"""Files of the predecessor, as old as they come, open here."""

import contextlib
import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest

from autocoder.core.errors import DatabaseError
from autocoder.core.models import AgentState, FeatureStatus
from autocoder.core.store import FeatureDraft, NewAgent, ProjectStore
from support.seed_checks import violations

OLDEST = """
CREATE TABLE features (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, description TEXT, category TEXT,
    status TEXT DEFAULT 'pending', priority INTEGER DEFAULT 0, assigned_agent_id TEXT,
    assigned_at TIMESTAMP, branch_name TEXT, review_status TEXT DEFAULT 'PENDING',
    passes BOOLEAN DEFAULT FALSE, completed_at TIMESTAMP, attempts INTEGER DEFAULT 0,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP);
CREATE TABLE agent_heartbeats (
    id INTEGER PRIMARY KEY AUTOINCREMENT, agent_id TEXT NOT NULL, last_ping TIMESTAMP,
    status TEXT DEFAULT 'ACTIVE', worktree_path TEXT, feature_id INTEGER, pid INTEGER,
    started_at TIMESTAMP, FOREIGN KEY (feature_id) REFERENCES features (id));
CREATE TABLE branches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, branch_name TEXT UNIQUE, feature_id INTEGER,
    agent_id TEXT, created_at TIMESTAMP, merged_at TIMESTAMP, commit_hash TEXT,
    FOREIGN KEY (feature_id) REFERENCES features (id));
CREATE TABLE knowledge_patterns (id INTEGER PRIMARY KEY, pattern TEXT NOT NULL);
"""
LATEST = """
ALTER TABLE features ADD COLUMN steps TEXT;
ALTER TABLE features ADD COLUMN enabled BOOLEAN DEFAULT TRUE;
ALTER TABLE features ADD COLUMN last_error TEXT;
ALTER TABLE features ADD COLUMN next_attempt_at TIMESTAMP;
ALTER TABLE features ADD COLUMN last_error_key TEXT;
ALTER TABLE features ADD COLUMN same_error_streak INTEGER;
ALTER TABLE features ADD COLUMN last_artifact_path TEXT;
ALTER TABLE features ADD COLUMN last_diff_fingerprint TEXT;
ALTER TABLE features ADD COLUMN same_diff_streak INTEGER;
ALTER TABLE features ADD COLUMN qa_attempts INTEGER;
ALTER TABLE features ADD COLUMN regression_count INTEGER;
ALTER TABLE features ADD COLUMN regression_of_id INTEGER;
ALTER TABLE agent_heartbeats ADD COLUMN proc_create_time REAL;
ALTER TABLE agent_heartbeats ADD COLUMN api_port INTEGER;
ALTER TABLE agent_heartbeats ADD COLUMN web_port INTEGER;
ALTER TABLE agent_heartbeats ADD COLUMN log_file_path TEXT;
CREATE TABLE feature_dependencies (
    feature_id INTEGER NOT NULL, depends_on_id INTEGER NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (feature_id, depends_on_id));
CREATE TABLE activity_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    level TEXT DEFAULT 'INFO', event_type TEXT, message TEXT, agent_id TEXT,
    feature_id INTEGER, data_json TEXT);
CREATE TABLE project_settings (key TEXT PRIMARY KEY, value_json TEXT, updated_at TIMESTAMP);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent_system.db"


def predecessor(path: Path, *statements: str, schema: str = OLDEST + LATEST) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema + ";\n".join(statements))
        connection.commit()


def content(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def heartbeat(agent_id: str, status: str, feature: object, api: object, web: object) -> str:
    return (
        "INSERT INTO agent_heartbeats (agent_id, status, feature_id, pid, api_port, web_port, "
        f"started_at, last_ping) VALUES ('{agent_id}', '{status}', {feature}, 4, {api}, {web}, "
        "'2026-01-10 10:00:00', '2026-01-10 10:05:00')"
    )


def test_the_oldest_file_opens_with_all_its_features(path: Path) -> None:
    predecessor(
        path,
        "INSERT INTO features (name, status, priority) VALUES ('waiting', 'pending', 1)",
        "INSERT INTO features (name, status) VALUES ('later', 'staged')",
        "INSERT INTO features (name, status, passes) VALUES ('ready', 'done', 1)",
        "INSERT INTO features (name, status, attempts) VALUES ('hard', 'blocked', 10)",
        "INSERT INTO features (name, status, assigned_agent_id) VALUES ('x', 'in_progress', 'q')",
        "INSERT INTO features (name, status, priority, attempts) VALUES ('n', NULL, NULL, NULL)",
        "INSERT INTO features (name, status) VALUES ('odd', 'reviewing')",
        schema=OLDEST,
    )

    store = ProjectStore(path)
    found = {f.name: (f.status.value, f.enabled, f.attempts) for f in store.features()}
    store.close()

    assert found == {
        "waiting": ("PENDING", True, 0),
        "later": ("PENDING", False, 0),
        "ready": ("DONE", True, 0),
        "hard": ("BLOCKED", True, 10),
        "x": ("PENDING", True, 0),
        "n": ("PENDING", True, 0),
        "odd": ("BLOCKED", True, 0),
    }


@pytest.mark.parametrize("schema", [OLDEST, OLDEST + LATEST], ids=["oldest", "latest"])
def test_a_migrated_file_serves_like_a_new_one(path: Path, schema: str) -> None:
    predecessor(path, "INSERT INTO features (name) VALUES ('old')", schema=schema)
    store = ProjectStore(path)

    (new,) = store.add_features([FeatureDraft("new", priority=9, depends_on=("old",))])
    claimable = store.next_claimable()
    assert claimable
    agent = NewAgent("a-1", 5000, 5173, 1, "feat/1-old", "scripted")
    assert store.claim(claimable.id, agent)
    store.set_worker("a-1", pid=5, pid_start=6, boot_id="b", create_time=7.0)
    store.beat({"a-1": 1_800_000_000.0})
    assert store.feature(claimable.id).name == "old"
    assert store.feature(new.id).depends_on == (claimable.id,)
    assert violations(path) == []
    store.close()


def test_rows_that_break_the_seeds_checks_go_to_the_history(path: Path) -> None:
    predecessor(
        path,
        *(f"INSERT INTO features (name, status) VALUES ('f{n}', 'IN_PROGRESS')" for n in range(6)),
        heartbeat("finished", "COMPLETED", 1, 5000, 5173),
        heartbeat("crashed", "crashed", 2, 5000, 5173),
        heartbeat("twice", "ACTIVE", 3, 5001, 5174),
        heartbeat("twice", "ACTIVE", 3, 5002, 5175),
        heartbeat("older", "ACTIVE", 4, 5003, 5176),
        heartbeat("newer", "ACTIVE", 5, 5003, 5177),
        heartbeat("same web", "ACTIVE", 5, 5004, 5176),
        heartbeat("portless", "ACTIVE", 6, "NULL", "NULL"),
        heartbeat("portless too", "active", 99, "NULL", "NULL"),
    )
    assert violations(path)

    store = ProjectStore(path)
    live = {agent.agent_id: agent.api_port for agent in store.live_agents()}
    ended = [(agent.agent_id, agent.state, agent.api_port) for agent in store.history(100)]
    held = [n for n in range(1, 7) if store.feature(n).status is FeatureStatus.IN_PROGRESS]
    store.close()

    assert live == {"twice": 5002, "older": 5003, "portless": None}
    assert sorted(ended, key=str) == [
        ("crashed", AgentState.CRASHED, 5000),
        ("finished", AgentState.COMPLETED, 5000),
        ("newer", AgentState.CRASHED, 5003),
        ("portless too", AgentState.CRASHED, None),
        ("same web", AgentState.CRASHED, 5004),
        ("twice", AgentState.CRASHED, 5001),
    ]
    assert held == [3, 4, 6]
    assert [v for v in violations(path) if "no pair" not in v] == []


def test_agents_of_dead_workers_leave_their_features_to_others(path: Path) -> None:
    predecessor(
        path,
        "INSERT INTO features (name, status) VALUES ('f', 'IN_PROGRESS')",
        heartbeat("gone", "ACTIVE", 1, 5000, 5173),
    )
    store = ProjectStore(path)
    (agent,) = store.live_agents()
    assert (agent.agent_id, agent.pid, agent.pid_start) == ("gone", 4, None)
    assert agent.last_ping == 1768039500.0

    store.reconcile(lambda _: False)

    assert store.live_agents() == ()
    claimable = store.next_claimable()
    assert claimable
    assert claimable.attempts == 0
    store.close()


def test_a_feature_that_a_live_worker_has_is_not_pending(path: Path) -> None:
    predecessor(
        path,
        "INSERT INTO features (name, status) VALUES ('f', 'PENDING')",
        heartbeat("busy", "ACTIVE", 1, 5000, 5173),
    )
    store = ProjectStore(path)

    feature = store.feature(1)
    assert (feature.status, feature.agent_id) == (FeatureStatus.IN_PROGRESS, "busy")
    store.close()


def test_times_of_any_form_are_understood(path: Path) -> None:
    forms = {
        "micro": ("'2026-01-10 10:00:00.500000'", 1768039200.5),
        "iso": ("'2026-01-10T10:00:00Z'", 1768039200.0),
        "zone": ("'2026-01-10T11:00:00+01:00'", 1768039200.0),
        "word": ("'soon'", None),
        "none": ("NULL", None),
    }
    predecessor(
        path,
        *(
            f"INSERT INTO features (name, next_attempt_at) VALUES ('{name}', {text})"
            for name, (text, _) in forms.items()
        ),
    )
    store = ProjectStore(path, now=lambda: 1768039200.25)

    assert {f.name: f.next_attempt_at for f in store.features()} == {
        name: seconds for name, (_, seconds) in forms.items()
    }
    assert store.awaits_work()
    store.close()


def test_dependencies_on_nothing_or_oneself_are_dropped(path: Path) -> None:
    predecessor(
        path,
        "INSERT INTO features (name) VALUES ('a')",
        "INSERT INTO features (name) VALUES ('b')",
        "INSERT INTO feature_dependencies (feature_id, depends_on_id) "
        "VALUES (2, 1), (2, 2), (2, 77), (88, 1)",
    )
    store = ProjectStore(path)

    assert [feature.depends_on for feature in store.features()] == [(), (1,)]
    store.close()


def test_what_nobody_here_knows_survives(path: Path) -> None:
    predecessor(
        path,
        "ALTER TABLE features ADD COLUMN mood TEXT",
        "INSERT INTO features (name, mood) VALUES ('f', 'good')",
        "INSERT INTO branches (branch_name, feature_id) VALUES ('feat/1', 1)",
        "INSERT INTO knowledge_patterns (pattern) VALUES ('kept')",
        "INSERT INTO project_settings (key, value_json) VALUES ('theirs', '{\"a\": 1}')",
    )
    store = ProjectStore(path)
    assert store.setting("theirs") == {"a": 1}
    store.close()

    kept = "\n".join(content(path))
    for value in ("'good'", "'feat/1'", "'kept'"):
        assert value in kept


def test_a_copy_of_the_old_file_stays_beside_it(path: Path) -> None:
    predecessor(path, "INSERT INTO features (name, status) VALUES ('f', 'staged')")
    before = content(path)

    ProjectStore(path).close()
    migrated = content(path)
    ProjectStore(path).close()

    assert content(path.with_name("agent_system.db.v0.bak")) == before
    assert content(path) == migrated
    names = {file.name for file in path.parent.iterdir()}
    assert names - {"agent_system.db-journal"} == {"agent_system.db", "agent_system.db.v0.bak"}


def test_a_file_of_version_1_gains_what_features_are_to_run(path: Path) -> None:
    store = ProjectStore(path)
    store.add_features([FeatureDraft("old")])
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for column in ("backend", "model", "base", "variant_of"):
            connection.execute(f"ALTER TABLE features DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    before = content(path)

    store = ProjectStore(path)
    (new,) = store.add_features([FeatureDraft("new", backend="codex", depends_on=("old",))])
    (old, _) = store.features()
    store.close()

    assert (old.backend, old.model, old.base, old.variant_of) == ("", "", "", None)
    assert new.backend == "codex"
    assert content(path.with_name("agent_system.db.v1.bak")) == before


def leave_wal_behind(path: Path) -> None:
    """As a program does that is killed: the last rows are in the WAL file only."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(OLDEST)
    connection.execute("INSERT INTO features (name) VALUES ('in the log')")
    connection.commit()
    os._exit(0)


def test_what_a_killed_program_left_in_its_wal_file_is_not_lost(path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=leave_wal_behind, args=(path,))
    child.start()
    child.join()
    assert path.with_name("agent_system.db-wal").stat().st_size

    store = ProjectStore(path)
    names = [feature.name for feature in store.features()]
    store.close()

    assert names == ["in the log"]
    assert any("in the log" in line for line in content(path.with_name("agent_system.db.v0.bak")))
    assert not path.with_name("agent_system.db-wal").exists()


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    predecessor(
        path,
        "INSERT INTO features (name) VALUES ('f')",
        "CREATE TRIGGER boom BEFORE UPDATE ON features BEGIN SELECT RAISE(ABORT, 'boom'); END",
    )
    before = content(path)

    with pytest.raises(DatabaseError, match="boom"):
        ProjectStore(path)

    assert content(path) == before


def test_a_file_of_a_newer_program_is_refused_untouched(path: Path) -> None:
    predecessor(path, "PRAGMA user_version = 99", "PRAGMA journal_mode = WAL")
    before = path.read_bytes()

    with pytest.raises(DatabaseError, match="schema version 99") as refusal:
        ProjectStore(path)

    assert refusal.value.cause == "newer"
    assert path.read_bytes() == before


def open_and_count(path: Path) -> None:
    store = ProjectStore(path)
    assert len(store.features()) == 500
    store.close()


def test_two_programs_may_migrate_at_the_same_time(path: Path) -> None:
    rows = "),(".join(f"'f{n}', 'pending'" for n in range(500))
    predecessor(path, f"INSERT INTO features (name, status) VALUES ({rows})")
    before = content(path)
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=open_and_count, args=(path,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()

    assert [child.exitcode for child in children] == [0, 0, 0]
    assert content(path.with_name("agent_system.db.v0.bak")) == before
