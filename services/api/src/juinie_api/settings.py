"""The api's settings."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from juinie_shared.runtime.settings import EdgeSettings


class Settings(EdgeSettings):
    """What the api takes from the environment."""

    port: int = Field(
        8000, ge=0, le=65535, validation_alias="JUINIE_API_PORT", description="Port that the api listens on."
    )
    stream_url: str = Field(
        "http://127.0.0.1:8001", validation_alias="JUINIE_STREAM_URL", pattern=r"^https?://",
        description="Where clients reach the stream gateway; `stream_url` of a Run begins with it.",
    )  # fmt: skip
    database_connections: int = Field(
        8,
        ge=1,
        le=200,
        validation_alias="JUINIE_API_DATABASE_CONNECTIONS",
        description="Size of the pool of each process. Beside it are up to nine: two for appends that share a commit, four for workers' claims.",
    )
    max_request_bytes: int = Field(
        1024 * 1024, ge=1, validation_alias="JUINIE_MAX_REQUEST_BYTES",
        description="Largest request body, after decompression.",
    )  # fmt: skip
    max_event_bytes: int = Field(
        256 * 1024, ge=1, validation_alias="JUINIE_MAX_EVENT_BYTES", description="Largest `data` of an event."
    )
    max_payload_bytes: int = Field(
        256 * 1024, ge=1, validation_alias="JUINIE_MAX_PAYLOAD_BYTES",
        description="Largest `input`, `output` and `error` of a run, each.",
    )  # fmt: skip
    max_metadata_bytes: int = Field(
        16 * 1024,
        ge=2,
        validation_alias="JUINIE_MAX_METADATA_BYTES",
        description="Largest `metadata` of a run.",
    )
    max_events: int = Field(
        1000, ge=1, validation_alias="JUINIE_MAX_EVENTS", description="Most events in one request."
    )
    max_nesting: int = Field(
        64,
        ge=1,
        le=900,
        validation_alias="JUINIE_MAX_NESTING",
        description="Deepest nesting of a JSON value.",
    )
    max_name_chars: int = Field(
        256, ge=1, validation_alias="JUINIE_MAX_NAME_CHARS",
        description="Longest `agent`, `thread_id` and `reason`, in characters.",
    )  # fmt: skip
    max_page_bytes: int = Field(
        4 * 1024 * 1024, ge=1, validation_alias="JUINIE_MAX_PAGE_BYTES",
        description="A page of events ends after so many bytes of data, one of runs after so many of `error` and `metadata`, whatever its `limit`.",
    )  # fmt: skip
    max_unread_bytes: int = Field(
        128 * 1024 * 1024, ge=1, validation_alias="JUINIE_MAX_UNREAD_BYTES",
        description="Bytes of answers that wait for clients to read them, all together. Above that, who has kept us waiting for longest is cut.",
    )  # fmt: skip
    unread_seconds: float = Field(
        30.0, gt=0, validation_alias="JUINIE_UNREAD_SECONDS",
        description="In this time a client has to take all of an answer, or 2,000 bytes a second, or is cut 4 s later at most.",
    )  # fmt: skip
    max_unanswered_bytes: int = Field(
        256 * 1024 * 1024, ge=1, validation_alias="JUINIE_MAX_UNANSWERED_BYTES",
        description="Bytes of request bodies that arrive or wait for their answer, all together, those above 16 KiB. A tenant may hold as much as is left free. Twice JUINIE_MAX_REQUEST_BYTES at least.",
    )  # fmt: skip
    timeout_seconds: int = Field(
        86_400,
        ge=1,
        validation_alias="JUINIE_RUN_TIMEOUT_SECONDS",
        description="A run's `timeout_seconds` by default.",
    )
    idle_timeout_seconds: int = Field(
        3600, ge=1, validation_alias="JUINIE_RUN_IDLE_TIMEOUT_SECONDS",
        description="A run's `idle_timeout_seconds` by default.",
    )  # fmt: skip
    requests_per_minute: int | None = Field(
        None, ge=1, validation_alias="JUINIE_REQUESTS_PER_MINUTE",
        description="Requests of a tenant a minute, unless it has a quota of its own. Without it, any number.",
    )  # fmt: skip
    events_per_minute: int | None = Field(
        None, ge=1, validation_alias="JUINIE_EVENTS_PER_MINUTE",
        description="Events that a tenant appends a minute, likewise.",
    )  # fmt: skip
    bytes_per_minute: int | None = Field(
        None, ge=1, validation_alias="JUINIE_BYTES_PER_MINUTE",
        description="Bytes of JSON, without the white space, in what a tenant creates, appends and finishes a minute, likewise.",
    )  # fmt: skip
    rate_window_seconds: int = Field(
        60, ge=1, le=60, validation_alias="JUINIE_RATE_WINDOW_SECONDS",
        description="Rates are counted in windows of this length, each with its share of the minute.",
    )  # fmt: skip
    max_active_runs: int | None = Field(
        None, ge=1, validation_alias="JUINIE_MAX_ACTIVE_RUNS",
        description="Unfinished runs of a tenant, unless it has a quota of its own. Without it, any number.",
    )  # fmt: skip
    max_active_runs_per_key: int | None = Field(
        None, ge=1, validation_alias="JUINIE_MAX_ACTIVE_RUNS_PER_KEY",
        description="Unfinished runs that were made with a key since it has a limit, likewise. Without it, any number.",
    )  # fmt: skip
    max_events_per_run: int | None = Field(
        None, ge=1, validation_alias="JUINIE_MAX_EVENTS_PER_RUN",
        description="Events that a run of a tenant may have, removed ones too, unless the tenant has a quota of its own. Without it, any number.",
    )  # fmt: skip
    max_waiting_requests: int = Field(
        10_000, ge=1, validation_alias="JUINIE_MAX_WAITING_REQUESTS",
        description="Requests of a tenant that wait at once, unless it has a quota of its own.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _have_room_for_a_body(self) -> Self:
        if self.max_unanswered_bytes < 2 * self.max_request_bytes:
            raise PydanticCustomError(
                "no_room", "JUINIE_MAX_UNANSWERED_BYTES is twice JUINIE_MAX_REQUEST_BYTES at least"
            )
        return self
