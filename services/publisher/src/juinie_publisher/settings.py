"""The publisher's settings. Every one is an environment variable; the reference page is made from this class."""

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from juinie_shared.contracts.names import DEAD_LETTERS_TOPIC, RUN_EVENTS_TOPIC
from juinie_shared.runtime.settings import BootstrapServers, ServiceSettings, TopicName


class Settings(ServiceSettings):
    """What the publisher takes besides what every service takes."""

    kafka_bootstrap_servers: BootstrapServers = Field(
        validation_alias="KAFKA_BOOTSTRAP_SERVERS", description="Kafka brokers, `host:port`, comma-separated."
    )
    port: int = Field(
        8002, ge=0, le=65535, validation_alias="JUINIE_PUBLISHER_PORT",
        description="Port of the publisher's health checks and metrics.",
    )  # fmt: skip
    kafka_topic: TopicName = Field(
        RUN_EVENTS_TOPIC, validation_alias="JUINIE_KAFKA_TOPIC", description="Topic of all run events."
    )
    kafka_dead_letter_topic: TopicName = Field(
        DEAD_LETTERS_TOPIC, validate_default=True, validation_alias="JUINIE_KAFKA_DEAD_LETTER_TOPIC",
        description="Topic of the events that could not be sent. Another one than `JUINIE_KAFKA_TOPIC`.",
    )  # fmt: skip
    kafka_partitions: int = Field(
        12, ge=1, validation_alias="JUINIE_KAFKA_PARTITIONS",
        description="Partitions of each topic that the publisher creates. An existing topic keeps its own.",
    )  # fmt: skip
    kafka_replication_factor: int = Field(
        1, ge=1, validation_alias="JUINIE_KAFKA_REPLICATION_FACTOR",
        description="Replicas of each partition of a topic that the publisher creates.",
    )  # fmt: skip
    sweep_seconds: float = Field(
        1.0, gt=0, le=2, validation_alias="JUINIE_SWEEP_SECONDS",
        description="How often the sweeper looks for runs that are due.",
    )  # fmt: skip
    max_attempts: int = Field(
        3, ge=1, validation_alias="JUINIE_MAX_ATTEMPTS",
        description="How often a run is started before a lease that runs out ends it as `error`.",
    )  # fmt: skip
    cancel_grace_seconds: float = Field(
        30.0, ge=0, le=86_400, validation_alias="JUINIE_CANCEL_GRACE_SECONDS",
        description="How long a worker may take to answer a cancel before the run is finished as `cancelled`.",
    )  # fmt: skip

    @field_validator("kafka_dead_letter_topic")
    @classmethod
    def _is_another_topic(cls, value: str, info: ValidationInfo) -> str:
        """A dead letter in the topic of all run events would be read as one of them."""
        if value == info.data.get("kafka_topic"):
            raise PydanticCustomError("same_topic", "Is the topic of all run events, too: name another one")
        return value
