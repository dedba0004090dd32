"""Response bodies, as the OpenAPI document shows them. `edges/answers.py` writes them."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, WithJsonSchema

from juinie_api.edges.schemas import ANY_JSON
from juinie_shared.domain.runs import RunStatus


class RunAnswer(BaseModel):
    """A run."""

    run_id: UUID
    agent: str
    thread_id: str | None
    status: RunStatus
    input: Annotated[Any, WithJsonSchema(ANY_JSON)] = Field(description="Left out in lists.")
    output: Annotated[Any, WithJsonSchema(ANY_JSON)] = Field(description="Left out in lists.")
    error: Annotated[Any, WithJsonSchema(ANY_JSON)]
    metadata: dict[str, Any]
    last_seq: int
    attempt: int
    cancel_requested: bool
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    deadline_at: AwareDatetime
    stream_url: str


class LeaseAnswer(BaseModel):
    """A worker's lease on a run. `token` is what `Juinie-Lease` shows; it is nobody else's business."""

    token: UUID
    attempt: int
    expires_at: AwareDatetime


class CreatedRunAnswer(RunAnswer):
    """A run that was created. `lease` is there when it was claimed at birth: null when that lease is no longer held, or
    when the request had no Idempotency-Key to show that it is the first one's repetition.
    """

    lease: LeaseAnswer | None = None


class ClaimAnswer(BaseModel):
    """A run for this worker, and its lease on it."""

    run: RunAnswer
    lease: LeaseAnswer


class HeartbeatAnswer(BaseModel):
    """Until when the lease is good now, and whether somebody asked the run to stop."""

    expires_at: AwareDatetime
    cancel_requested: bool


class ListedRun(BaseModel):
    """A run in a list: without its input and output."""

    run_id: UUID
    agent: str
    thread_id: str | None
    status: RunStatus
    error: Annotated[Any, WithJsonSchema(ANY_JSON)]
    metadata: dict[str, Any]
    last_seq: int
    attempt: int
    cancel_requested: bool
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    deadline_at: AwareDatetime
    stream_url: str


class RunList(BaseModel):
    """Runs, the newest first. `next_cursor` leads to older ones; null on the last page."""

    items: list[ListedRun]
    next_cursor: str | None


class AppendAnswer(BaseModel):
    """The seqs of the events that this request appended, and how its run stands."""

    first_seq: int
    last_seq: int
    status: RunStatus
    cancel_requested: bool


class RunEvent(BaseModel):
    """A run event."""

    seq: int
    type: str
    time: AwareDatetime
    data: Annotated[Any, WithJsonSchema(ANY_JSON)]


class EventPageAnswer(BaseModel):
    """Events after a position. Read on from `next_after_seq`, until `finished` and `up_to_date`."""

    events: list[RunEvent]
    next_after_seq: int
    last_seq: int
    up_to_date: bool
    finished: bool
    reset: bool


class StreamTokenAnswer(BaseModel):
    """A stream token: for this run alone, to read, until it expires or the key that asked for it is revoked."""

    token: str
    expires_at: AwareDatetime


class ShardAnswer(BaseModel):
    """One of the outbox's shards. `publisher`: who relays it; null when nobody does."""

    shard: int
    pending: int
    oldest_age_seconds: float
    publisher: str | None


class OutboxAnswer(BaseModel):
    """The outbox of the whole installation: rows that wait for Kafka, and the age of the oldest."""

    pending: int
    oldest_age_seconds: float
    paused: bool
    shards: list[ShardAnswer]


class DeadLetterAnswer(BaseModel):
    """Events of a run that could not be sent to Kafka, and why: `message_too_large` or `not_encodable`."""

    id: int
    run_id: UUID
    first_seq: int
    last_seq: int
    reason: str
    created_at: AwareDatetime


class DeadLetterList(BaseModel):
    """Dead letters, the newest first. `next_cursor` leads to older ones; null on the last page."""

    items: list[DeadLetterAnswer]
    next_cursor: str | None


class RepublishAnswer(BaseModel):
    """How many records go to Kafka again."""

    records: int


class FaultAnswer(BaseModel):
    """One fault. `pointer` is a JSON Pointer into the body, or a parameter's name."""

    pointer: str
    code: str
    detail: str


class ProblemAnswer(BaseModel):
    """What went wrong (RFC 9457). `code` is stable; all faults of a request are in `errors`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    trace_id: str
    errors: list[FaultAnswer] = []
    retained_from_seq: int | None = Field(None, description="With 410 alone: the first event that is kept.")
    violated_policies: list[str] = Field(
        [], alias="violated-policies", description="With 429 alone: the limits that are reached."
    )
