"""The rows of both databases; only `ports` and `store` import them.

A port belongs to the host and a feature to its project, hence two files. Names
of `features`, `agent_heartbeats`, `feature_dependencies`, `activity_events` and
`project_settings` are the predecessor's, so that its files open here and its
queries hold; times of the project database are its UTC text.
"""

from sqlalchemy import DDL, CheckConstraint, Index, event, text
from sqlmodel import Field, SQLModel


class PortLeaseRow(SQLModel, table=True):
    """A port that is not simply available. One owner per port number and host."""

    __tablename__ = "port_leases"
    __table_args__ = (
        # Without host_id in front, or SQLite prefers the primary key and reads every row.
        Index("port_leases_by_holder", "project", "holder"),
        Index(
            "port_leases_unsettled",
            "state",
            "role",
            "due_at",
            sqlite_where=text("state <> 'leased'"),
        ),
        CheckConstraint("role IN ('api', 'web') AND port BETWEEN 1 AND 65535"),
        CheckConstraint("state IN ('leased', 'releasing', 'cooling', 'quarantined')"),
        {"sqlite_with_rowid": False},
    )

    host_id: str = Field(primary_key=True)
    port: int = Field(primary_key=True)
    role: str
    state: str
    address: str = ""
    """Address the pool is declared for; empty: all of them."""
    holder: str = ""
    project: str = ""
    pid: int | None = None
    pid_start: int | None = None
    boot_id: str = ""
    epoch: int = 0
    leased_at: float | None = None
    changed_at: float = 0.0
    due_at: float | None = None
    listener_pid: int | None = None
    listener: str = ""


class PortGapRow(SQLModel, table=True):
    """The ports between the rows of `port_leases`, kept by triggers on that table.

    The lowest port without a row is one look-up, however many rows there are. A host
    without any gap has never leased: all its ports are one.
    """

    __tablename__ = "port_gaps"
    __table_args__ = {"sqlite_with_rowid": False}

    host_id: str = Field(primary_key=True)
    until: int = Field(primary_key=True)
    """The first port after the gap."""
    start: int


_PORT_TAKEN = DDL(  # type: ignore[no-untyped-call]
    """
CREATE TRIGGER port_taken AFTER INSERT ON port_leases BEGIN
  INSERT INTO port_gaps (host_id, start, until) SELECT NEW.host_id, 0, 65536
    WHERE NOT EXISTS (SELECT 1 FROM port_gaps WHERE host_id = NEW.host_id);
  INSERT INTO port_gaps (host_id, start, until)
    SELECT host_id, start, NEW.port FROM port_gaps
    WHERE host_id = NEW.host_id AND start < NEW.port AND until =
      (SELECT min(until) FROM port_gaps WHERE host_id = NEW.host_id AND until > NEW.port);
  UPDATE port_gaps SET start = NEW.port + 1
    WHERE host_id = NEW.host_id AND until =
      (SELECT min(until) FROM port_gaps WHERE host_id = NEW.host_id AND until > NEW.port);
  DELETE FROM port_gaps
    WHERE host_id = NEW.host_id AND until = NEW.port + 1 AND start = NEW.port + 1;
END"""
)
_PORT_GIVEN_BACK = DDL(  # type: ignore[no-untyped-call]
    """
CREATE TRIGGER port_given_back AFTER DELETE ON port_leases BEGIN
  INSERT OR REPLACE INTO port_gaps (host_id, start, until) VALUES (
    OLD.host_id,
    coalesce((SELECT start FROM port_gaps WHERE host_id = OLD.host_id AND until = OLD.port),
             OLD.port),
    coalesce((SELECT until FROM port_gaps
              WHERE host_id = OLD.host_id AND start = OLD.port + 1 AND until =
                (SELECT min(until) FROM port_gaps
                 WHERE host_id = OLD.host_id AND until > OLD.port)),
             OLD.port + 1));
  DELETE FROM port_gaps WHERE host_id = OLD.host_id AND until = OLD.port;
END"""
)
for _trigger in (_PORT_TAKEN, _PORT_GIVEN_BACK):
    event.listen(SQLModel.metadata.tables["port_gaps"], "after_create", _trigger)


class PortRangeRow(SQLModel, table=True):
    """A range that a pool has been grown by; what settings declare is not repeated here."""

    __tablename__ = "port_ranges"

    host_id: str = Field(primary_key=True)
    start: int = Field(primary_key=True)
    end: int
    role: str
    address: str = ""
    added_at: float
    reason: str = ""


class LedgerCounterRow(SQLModel, table=True):
    """Numbers that outlive every process: the last epoch, allocation failures."""

    __tablename__ = "ledger_counters"

    host_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    value: int = 0


class FeatureRow(SQLModel, table=True):
    __tablename__ = "features"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    description: str | None = None
    steps: str | None = None
    """JSON array of texts."""
    category: str | None = None
    status: str = "PENDING"
    priority: int = 0
    assigned_agent_id: str | None = None
    assigned_at: str | None = None
    branch_name: str | None = None
    review_status: str | None = "PENDING"
    passes: bool = False
    completed_at: str | None = None
    enabled: bool = True
    attempts: int = 0
    last_error: str | None = None
    next_attempt_at: str | None = None
    last_error_key: str | None = None
    same_error_streak: int = 0
    last_artifact_path: str | None = None
    last_diff_fingerprint: str | None = None
    same_diff_streak: int = 0
    qa_attempts: int = 0
    regression_count: int = 0
    regression_of_id: int | None = None
    backend: str | None = None
    model: str | None = None
    base: str | None = None
    variant_of: int | None = None
    created_at: str | None = None
    updated_at: str | None = None


class FeatureDependencyRow(SQLModel, table=True):
    __tablename__ = "feature_dependencies"

    feature_id: int = Field(primary_key=True, foreign_key="features.id")
    depends_on_id: int = Field(primary_key=True, foreign_key="features.id")
    created_at: str | None = None


class AgentColumns(SQLModel):
    """What a live and an ended agent have in common."""

    agent_id: str = Field(index=True)
    last_ping: str | None = None
    status: str = "ACTIVE"
    worktree_path: str | None = None
    feature_id: int | None = Field(default=None, foreign_key="features.id")
    pid: int | None = None
    started_at: str | None = None
    proc_create_time: float | None = None
    log_file_path: str | None = None
    pid_start: int | None = None
    boot_id: str | None = None
    branch_name: str | None = None
    backend: str | None = None
    epoch: int = 0
    """Of its lease; proves to the ledger that the grant is this agent's."""


class AgentHeartbeatRow(AgentColumns, table=True):
    """A live agent. An agent that ends moves to `agent_history` in one transaction, so that
    no finished row ever names a port."""

    __tablename__ = "agent_heartbeats"

    id: int | None = Field(default=None, primary_key=True)
    api_port: int | None = None
    web_port: int | None = None


class AgentHistoryRow(AgentColumns, table=True):
    """An agent that has ended, by the ports it had and why it ended."""

    __tablename__ = "agent_history"

    id: int | None = Field(default=None, primary_key=True)
    had_api_port: int | None = None
    had_web_port: int | None = None
    ended_at: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    eaddrinuse: int = 0


class ActivityEventRow(SQLModel, table=True):
    __tablename__ = "activity_events"

    id: int | None = Field(default=None, primary_key=True)
    created_at: str | None = None
    level: str = "INFO"
    event_type: str = ""
    message: str = ""
    agent_id: str | None = None
    feature_id: int | None = None
    data_json: str | None = None


class ProjectSettingRow(SQLModel, table=True):
    __tablename__ = "project_settings"

    key: str = Field(primary_key=True)
    value_json: str | None = None
    updated_at: str | None = None


class KeptAnswerRow(SQLModel, table=True):
    """What a request under an idempotency key was answered, once it was done."""

    __tablename__ = "kept_answers"

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    asked: str
    """Fingerprint of the request: another one may not use the key."""
    answer_json: str
    answered_at: str


LEDGER_TABLES = (PortLeaseRow, PortGapRow, PortRangeRow, LedgerCounterRow)
PROJECT_TABLES = (
    FeatureRow,
    FeatureDependencyRow,
    AgentHeartbeatRow,
    AgentHistoryRow,
    ActivityEventRow,
    ProjectSettingRow,
    KeptAnswerRow,
)
