"""Settings of the stream gateway."""

from pydantic import Field

from juinie_shared.contracts.names import RUN_EVENTS_TOPIC
from juinie_shared.runtime.settings import BootstrapServers, EdgeSettings, TopicName


class Settings(EdgeSettings):
    """What the stream gateway takes from the environment."""

    port: int = Field(
        8001, ge=0, le=65535, validation_alias="JUINIE_STREAM_PORT", description="Port of the stream gateway."
    )
    kafka_bootstrap_servers: BootstrapServers = Field(
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="Kafka's `host:port`, comma-separated.",
    )
    kafka_topic: TopicName = Field(
        RUN_EVENTS_TOPIC,
        validation_alias="JUINIE_KAFKA_TOPIC",
        description="Topic of all run events.",
    )
    max_streams: int = Field(
        10_000,
        ge=1,
        validation_alias="JUINIE_MAX_STREAMS",
        description="Streams open at once in this process; one more is told to reconnect.",
    )
    max_streams_per_tenant: int = Field(
        100_000,
        ge=1,
        validation_alias="JUINIE_MAX_STREAMS_PER_TENANT",
        description="Streams of a tenant open at once, over all gateways, unless it has a quota of its own.",
    )
    max_streams_per_key: int | None = Field(
        None,
        ge=1,
        validation_alias="JUINIE_MAX_STREAMS_PER_KEY",
        description="Streams open at once with a key and its tokens, likewise. Without it, any number.",
    )
    max_streams_per_run: int | None = Field(
        None,
        ge=1,
        validation_alias="JUINIE_MAX_STREAMS_PER_RUN",
        description="Streams of one run open at once, likewise. Without it, any number.",
    )
    stream_buffer_bytes: int = Field(
        256 * 1024,
        ge=1024,
        validation_alias="JUINIE_STREAM_BUFFER_BYTES",
        description="Unsent bytes above which a watcher gets no live events until it has read. At most one batch or event more is held for it.",
    )
    stream_slow_seconds: float = Field(
        50.0,
        gt=0,
        validation_alias="JUINIE_STREAM_SLOW_SECONDS",
        description="In this time a watcher that is behind has to take all that waits for it, or 2,000 bytes a second, or is told to reconnect. It is gone 10 s later at most.",
    )
    stream_heartbeat_seconds: float = Field(
        10.0,
        gt=0,
        validation_alias="JUINIE_STREAM_HEARTBEAT_SECONDS",
        description="Silence after which a comment is sent.",
    )
    stream_cursor_seconds: float = Field(
        5.0,
        gt=0,
        validation_alias="JUINIE_STREAM_CURSOR_SECONDS",
        description="How often a filtered stream's cursor moves past what the filter leaves out.",
    )
    tail_check_seconds: float = Field(
        0.75,
        gt=0,
        validation_alias="JUINIE_TAIL_CHECK_SECONDS",
        description="How often all open streams are compared with Postgres.",
    )
    tail_poll_seconds: float = Field(
        0.375,
        gt=0,
        validation_alias="JUINIE_TAIL_POLL_SECONDS",
        description="How often runs that Kafka is behind on are compared with Postgres.",
    )
    credential_check_seconds: float = Field(
        15.0,
        gt=0,
        validation_alias="JUINIE_CREDENTIAL_CHECK_SECONDS",
        description="How often the keys behind open streams are asked about.",
    )
    backfill_concurrency: int = Field(
        4,
        ge=1,
        validation_alias="JUINIE_BACKFILL_CONCURRENCY",
        description="Database reads for streams at once.",
    )
    backfill_page_events: int = Field(
        500, ge=1, validation_alias="JUINIE_BACKFILL_PAGE_EVENTS", description="Events read at once, at most."
    )
    backfill_page_bytes: int = Field(
        256 * 1024,
        ge=1,
        validation_alias="JUINIE_BACKFILL_PAGE_BYTES",
        description="Event bytes read at once, at least one event.",
    )
    linger_seconds: float = Field(
        0.0,
        ge=0,
        le=0.25,
        validation_alias="JUINIE_STREAM_LINGER_SECONDS",
        description="How long Kafka gathers events before it answers a read, while they come anyway: fewer reads, for as much latency. The first after a tenth of a second without any comes at once.",
    )
    recent_bytes: int = Field(
        32 * 1024 * 1024,
        ge=0,
        validation_alias="JUINIE_RECENT_BYTES",
        description="Memory for the newest frames, kept for watchers that fall behind for a moment.",
    )
