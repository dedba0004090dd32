"""What retention may have taken from the partitions that a run can lie in: only that excuses a record which is not there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.partitioner import murmur2  # pyright: ignore[reportUnknownVariableType] - aiokafka has no types there

_MS, _BYTES = "retention.ms", "retention.bytes"


@dataclass(frozen=True, slots=True)
class Retention:
    """As the topic's configuration says. `ms`: how long, in milliseconds, None for ever; `by_size`: the size of a partition is bounded, too."""

    ms: int | None
    by_size: bool = False


async def retention_of(admin: Any, topic: str) -> Retention | None:
    """None for who may not read that. `admin`: a client that was started. Raises aiokafka's KafkaError."""
    asked = ConfigResource(ConfigResourceType.TOPIC, topic, {_MS: None, _BYTES: None})
    known = dict[str, int]()
    for response in await admin.describe_configs([asked]):
        for _code, _message, _type, _name, entries in response.resources:
            known |= {name: int(value) for name, value, *_ in entries if value is not None}
    if _MS not in known:
        return None
    return Retention(known[_MS] if known[_MS] >= 0 else None, known.get(_BYTES, -1) >= 0)


def possible_partitions(partitions: Sequence[TopicPartition], key: bytes) -> list[TopicPartition]:
    """Those that Kafka's default partitioner gives for this key, now or when the topic had fewer."""
    hashed: int = murmur2(key) & 0x7FFFFFFF
    in_order = sorted(partitions)
    return sorted({in_order[hashed % count] for count in range(1, len(in_order) + 1)})


def kept_since_ms(oldest_left: Iterable[int | None], retention: Retention | None, now_ms: int) -> int | None:
    """What is older may have been removed, in milliseconds since 1970; None: nothing was.

    Args:
        oldest_left: of each partition that has lost records, when the oldest came that is left; None where none is.
        retention: None where it is not known: then only what is left tells.

    Where time alone removes, nothing younger than that time is gone, however young the oldest is that is left.
    """
    if retention is None:
        return max((ms for ms in oldest_left if ms is not None), default=None)
    by_time = 0 if retention.ms is None else now_ms - retention.ms
    return max(
        (by_time if ms is None else ms if retention.by_size else min(ms, by_time) for ms in oldest_left),
        default=None,
    )
