"""Creates a topic when it is missing. An existing topic stays as it is, whatever the settings say."""

from dataclasses import dataclass
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import BrokerNotAvailableError, KafkaError, TopicAlreadyExistsError, for_code

_OPTIONS = {"message.timestamp.type": "LogAppendTime"}
"""The broker's time: a record that waited in the outbox must not be past its retention when it arrives."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """The topic as it is created."""

    name: str
    partitions: int
    replication_factor: int


@dataclass(frozen=True, slots=True)
class TopicFound:
    """The topic as it is there. `max_message_bytes`: what its brokers take as one batch; None where they do not say."""

    created: bool
    max_message_bytes: int | None


async def ensure_topic(admin: Any, plan: TopicPlan) -> TopicFound:
    """Create the topic if it is not there, and see how large its messages may be. `admin`: a client that was started.

    Raises:
        KafkaError: Kafka does not answer, or refuses.
    """
    created = plan.name not in await admin.list_topics() and await _create(admin, plan)
    return TopicFound(created, await max_message_bytes(admin, plan.name))


async def max_message_bytes(admin: Any, topic: str) -> int | None:
    """As the topic's configuration says; None for who may not read that. Raises as `ensure_topic`."""
    asked = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": None})
    for response in await admin.describe_configs([asked]):
        for _code, _message, _type, _name, entries in response.resources:
            for name, value, *_rest in entries:
                if name == "max.message.bytes" and value is not None:
                    return int(value)
    return None


async def _create(admin: Any, plan: TopicPlan) -> bool:
    topic = NewTopic(plan.name, plan.partitions, plan.replication_factor, topic_configs=_OPTIONS)
    try:
        response = await admin.create_topics([topic])
    except (
        AttributeError
    ) as error:  # aiokafka asks the controller, and does not see that the cluster has none
        raise BrokerNotAvailableError from error
    for _, code, *_rest in response.topic_errors:
        error: Any = for_code(code)
        if error is TopicAlreadyExistsError:  # another publisher was faster
            return False
        if code:
            raise error if issubclass(error, KafkaError) else KafkaError(code)
    return True
