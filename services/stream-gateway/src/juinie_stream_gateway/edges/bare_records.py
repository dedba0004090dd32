"""Records as aiokafka parses them, without the object that it makes of each: its topic, sizes and times are of no use here.

That object costs as much again as the parsing. aiokafka has no setting for it; what is reached for here is private, of the
version in the lock, and `tests/contract/test_bare_records.py` sees that it is still there.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol, override

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchError


class BareRecord(Protocol):
    """A record of Kafka."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


def give_bare_records(consumer: Any) -> None:
    """From now on `getmany` of this consumer, which has started and not fetched yet, gives `BareRecord`s."""
    fetcher = consumer._fetcher  # noqa: SLF001
    fetcher._records = _Fetched(fetcher._records)  # noqa: SLF001


class _Fetched(OrderedDict[TopicPartition, Any]):
    """What the fetcher keeps of each partition until it is asked for: nothing of it has been parsed yet."""

    @override
    def __setitem__(self, partition: TopicPartition, fetched: Any) -> None:
        if not isinstance(fetched, FetchError):
            fetched._partition_records._consumer_record = _as_it_is  # noqa: SLF001
        super().__setitem__(partition, fetched)


def _as_it_is(_: TopicPartition, record: BareRecord) -> BareRecord:
    return record
