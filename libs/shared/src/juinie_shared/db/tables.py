"""The tables, as SQLModel sees them. Migrations make them; a test holds the two against each other.

Table classes do not validate: edges do. No foreign key leads to `run` from the tables that an append writes: the
append holds the run's row lock, which says the same for less.
"""

from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


class Row(SQLModel):
    """Base of all tables: one metadata, named constraints."""

    metadata: ClassVar[MetaData] = metadata  # pyright: ignore[reportIncompatibleVariableOverride] - as SQLModel documents


def _now() -> Column[datetime]:
    return Column(DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()"))


def _moment() -> Column[datetime]:
    return Column(DateTime(timezone=True), nullable=True)


def _quotas() -> Column[Any]:
    return Column(JSONB, nullable=False, server_default=text("'{}'"))


class Tenant(Row, table=True):
    """An owner of keys and runs. `events_after`/`runs_after`: how long finished runs are kept; NULL = for ever.

    `quotas`: by name, see `domain/quotas.py`.
    """

    __tablename__: ClassVar[str] = "tenant"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr

    tenant_id: UUID = Field(primary_key=True)
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    events_after: timedelta | None = Field(default=None, sa_column=Column(Interval))
    runs_after: timedelta | None = Field(default=None, sa_column=Column(Interval))
    quotas: dict[str, int | None] = Field(default_factory=dict, sa_column=_quotas())
    created_at: datetime = Field(sa_column=_now())


class ApiKey(Row, table=True):
    """An API key. Only its SHA-256 is stored."""

    __tablename__: ClassVar[str] = "api_key"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr

    key_id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(sa_column=Column(ForeignKey("tenant.tenant_id"), nullable=False, index=True))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    scopes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    created_at: datetime = Field(sa_column=_now())
    quotas: dict[str, int | None] = Field(default_factory=dict, sa_column=_quotas())
    expires_at: datetime | None = Field(default=None, sa_column=_moment())
    revoked_at: datetime | None = Field(default=None, sa_column=_moment())


class Run(Row, table=True):
    """A run. Its row lock orders its events; an append changes only columns without an index, so updates stay HOT.

    `input`, `output`, `error`, `metadata` are JSON text, kept as they came. `due_at`: no later than the moment at which
    the sweeper has something to do with the run; it may look in vain, and then sets the next. NULL: never again.
    `counted_key_id`: the key that made it, where that key had a limit of unfinished runs then.
    """

    __tablename__: ClassVar[str] = "run"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr
    __table_args__ = (
        CheckConstraint("status IN ('pending','running','success','error','cancelled','timeout')", name="status"),
        Index("run_tenant_created_idx", "tenant_id", "created_at", "run_id"),
        Index(
            "run_tenant_thread_idx", "tenant_id", "thread_id", "created_at", "run_id",
            postgresql_where=text("thread_id IS NOT NULL"),
        ),
        Index("run_deleted_idx", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        Index("run_due_idx", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index(
            "run_pending_idx", "tenant_id", "agent", "created_at", "run_id",
            postgresql_where=text("status = 'pending'"),
        ),
        Index("run_open_idx", "tenant_id", postgresql_where=text("status IN ('pending', 'running')")),
        Index(
            "run_open_of_key_idx", "counted_key_id",
            postgresql_where=text("counted_key_id IS NOT NULL AND status IN ('pending', 'running')"),
        ),
        Index(
            "run_finished_idx", "tenant_id", "finished_at",
            postgresql_where=text("finished_at IS NOT NULL AND events_removed_at IS NULL AND deleted_at IS NULL"),
        ),
        Index(
            "run_kept_idx", "tenant_id", "finished_at",
            postgresql_where=text("finished_at IS NOT NULL AND deleted_at IS NULL"),
        ),
    )  # fmt: skip

    run_id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(sa_column=Column(ForeignKey("tenant.tenant_id"), nullable=False))
    shard: int = Field(sa_column=Column(SmallInteger, nullable=False))
    agent: str = Field(sa_column=Column(Text, nullable=False))
    thread_id: str | None = Field(default=None, sa_column=Column(Text))
    status: str = Field(default="pending", sa_column=Column(Text, nullable=False, server_default="pending"))
    input: str | None = Field(default=None, sa_column=Column(Text))
    output: str | None = Field(default=None, sa_column=Column(Text))
    error: str | None = Field(default=None, sa_column=Column(Text))
    metadata_: str = Field(
        default="{}", sa_column=Column("metadata", Text, nullable=False, server_default="{}")
    )
    last_seq: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    retained_from_seq: int = Field(
        default=1, sa_column=Column(BigInteger, nullable=False, server_default="1")
    )
    attempt: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    cancel_requested_at: datetime | None = Field(default=None, sa_column=_moment())
    lease_token: UUID | None = Field(default=None)
    lease_worker_id: str | None = Field(default=None, sa_column=Column(Text))
    lease_seconds: int | None = Field(default=None, sa_column=Column(Integer))
    lease_expires_at: datetime | None = Field(default=None, sa_column=_moment())
    idle_timeout_seconds: int = Field(sa_column=Column(Integer, nullable=False))
    deadline_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    fingerprint: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = Field(sa_column=_now())
    started_at: datetime | None = Field(default=None, sa_column=_moment())
    finished_at: datetime | None = Field(default=None, sa_column=_moment())
    last_event_at: datetime = Field(sa_column=_now())
    deleted_at: datetime | None = Field(default=None, sa_column=_moment())
    due_at: datetime | None = Field(
        default=None, sa_column=Column(DateTime(timezone=True), server_default=text("clock_timestamp()"))
    )
    events_removed_at: datetime | None = Field(default=None, sa_column=_moment())
    counted_key_id: UUID | None = Field(default=None)


class RunEvent(Row, table=True):
    """A run event. Never changes. `data` is JSON text: the bytes that came in are the bytes that go out."""

    __tablename__: ClassVar[str] = "run_event"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr

    run_id: UUID = Field(primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    type: str = Field(sa_column=Column(Text, nullable=False))
    data: str = Field(sa_column=Column(Text, nullable=False))
    occurred_at: datetime = Field(sa_column=_now())


class OutboxRow(Row, table=True):
    """One append on its way to Kafka: the range of seqs that it wrote. Deleted after the ack.

    `shard` is the run's; `bytes` the sum of its events' data, for the relay's window.
    """

    __tablename__: ClassVar[str] = "outbox"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr
    __table_args__ = (Index("outbox_shard_id_idx", "shard", "id"), Index("outbox_run_id_idx", "run_id"))

    id: int = Field(sa_column=Column(BigInteger, Identity(always=True, cache=1), primary_key=True))
    shard: int = Field(sa_column=Column(SmallInteger, nullable=False))
    run_id: UUID
    first_seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    bytes: int = Field(sa_column=Column(Integer, nullable=False))
    traceparent: str | None = Field(default=None, sa_column=Column(Text))
    created_at: datetime = Field(sa_column=_now())


class CreateKey(Row, table=True):
    """An Idempotency-Key of a create: which run it made, from which body."""

    __tablename__: ClassVar[str] = "create_key"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr

    tenant_id: UUID = Field(primary_key=True)
    key: str = Field(sa_column=Column(Text, primary_key=True))
    fingerprint: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    run_id: UUID = Field(index=True)


class AppendKey(Row, table=True):
    """An Idempotency-Key of an append or a finish, with what is needed to answer it again as the first time."""

    __tablename__: ClassVar[str] = "append_key"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr

    run_id: UUID = Field(primary_key=True)
    key: str = Field(sa_column=Column(Text, primary_key=True))
    route: str = Field(sa_column=Column(Text, nullable=False))
    fingerprint: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    first_seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    status: str = Field(sa_column=Column(Text, nullable=False))
    cancel_requested: bool


class RunTombstone(Row, table=True):
    """The id of a deleted run: taken for ever."""

    __tablename__: ClassVar[str] = "run_tombstone"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr

    run_id: UUID = Field(primary_key=True)
    deleted_at: datetime = Field(sa_column=_now())


class PublisherMember(Row, table=True):
    """A publisher that runs, or ran lately: a duty's share is counted from those seen within a lease."""

    __tablename__: ClassVar[str] = "publisher"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr

    publisher_id: UUID = Field(primary_key=True)
    name: str = Field(sa_column=Column(Text, nullable=False))
    seen_at: datetime = Field(sa_column=_now())


class Duty(Row, table=True):
    """What one publisher at a time does: a shard of the outbox, or (without `shard`) what there is once. All rows are there.

    Held until `expires_at`, and by nobody where that has passed.
    """

    __tablename__: ClassVar[str] = "duty"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr

    name: str = Field(sa_column=Column(Text, primary_key=True))
    shard: int | None = Field(default=None, sa_column=Column(SmallInteger, unique=True))
    publisher_id: UUID | None = Field(default=None)
    expires_at: datetime | None = Field(default=None, sa_column=_moment())


class SharedCount(Row, table=True):
    """What one process has counted under one name, for all to add up. Nothing that a crash may not take."""

    __tablename__: ClassVar[str] = "shared_count"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr
    __table_args__ = ({"prefixes": ["UNLOGGED"]},)

    counter: str = Field(sa_column=Column(Text, primary_key=True))
    process_id: UUID = Field(primary_key=True)
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    seen_at: datetime = Field(sa_column=_now())


class DeadLetter(Row, table=True):
    """Seqs of a run that cannot be sent as they are, taken out of the outbox, with the reason.

    Lies here until it is requeued or discarded; its run is not removed before. `recorded_at`: when its record was
    written to the topic of dead letters.
    """

    __tablename__: ClassVar[str] = "dead_letter"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr
    __table_args__ = (
        Index("dead_letter_tenant_id_idx", "tenant_id", "id"),
        Index("dead_letter_run_id_idx", "run_id"),
        Index("dead_letter_unrecorded_idx", "shard", "id", postgresql_where=text("recorded_at IS NULL")),
    )

    id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    tenant_id: UUID
    run_id: UUID
    first_seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    shard: int = Field(sa_column=Column(SmallInteger, nullable=False))
    reason: str = Field(sa_column=Column(Text, nullable=False))
    traceparent: str | None = Field(default=None, sa_column=Column(Text))
    created_at: datetime = Field(sa_column=_now())
    recorded_at: datetime | None = Field(default=None, sa_column=_moment())


class RelayState(Row, table=True):
    """One row, of the installation: since when the relay is paused, if it is."""

    __tablename__: ClassVar[str] = "relay_state"  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel says declared_attr
    __table_args__ = (CheckConstraint("one", name="one"),)

    one: bool = Field(sa_column=Column(Boolean, primary_key=True, server_default=text("true")))
    paused_at: datetime | None = Field(default=None, sa_column=_moment())
