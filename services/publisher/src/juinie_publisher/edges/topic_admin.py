"""Creates the topic when it is missing. An existing topic stays as it is, whatever the settings say."""

from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

_OPTIONS = {"message.timestamp.type": "LogAppendTime"}
"""The broker's time: a record that waited in the outbox must not be past its retention when it arrives."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """The topic as it is created."""

    name: str
    partitions: int
    replication_factor: int


async def ensure_topic(bootstrap_servers: str, plan: TopicPlan, request_seconds: float) -> bool:
    """Create the topic if it is not there. Gives whether it was created.

    Raises:
        KafkaError: Kafka does not answer, or refuses.
    """
    admin: Any = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers, client_id="juinie-publisher", request_timeout_ms=int(request_seconds * 1000)
    )  # fmt: skip
    try:
        await admin.start()
        if plan.name in await admin.list_topics():
            return False
        return await _create(admin, plan)
    finally:
        await admin.close()


async def _create(admin: Any, plan: TopicPlan) -> bool:
    topic = NewTopic(plan.name, plan.partitions, plan.replication_factor, topic_configs=_OPTIONS)
    response = await admin.create_topics([topic])
    for _, code, *_rest in response.topic_errors:
        error: Any = for_code(code)
        if error is TopicAlreadyExistsError:  # another publisher was faster
            return False
        if code:
            raise error if issubclass(error, KafkaError) else KafkaError(code)
    return True
