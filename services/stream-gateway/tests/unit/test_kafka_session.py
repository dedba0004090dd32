"""Where a run's records are is worked out once for as long as somebody watches it, and not remembered for long afterwards."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.partitioner import murmur2 as theirs  # pyright: ignore[reportUnknownVariableType] - has no types

from juinie_shared.domain.errors import KafkaAway
from juinie_shared.domain.ids import KeyId, RunId, TenantId, new_run_id
from juinie_stream_gateway.core.hub import Hub
from juinie_stream_gateway.core.recent import RecentFrames
from juinie_stream_gateway.edges import kafka_session
from juinie_stream_gateway.edges.kafka_session import Session

PARTITIONS = 12
MANY = 3000
"""More runs than are remembered when nobody watches them."""


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys that were hashed, each time."""
    seen = list[bytes]()

    def murmur2(key: bytes) -> int:
        seen.append(key)
        return hash(key)

    monkeypatch.setattr(kafka_session, "murmur2", murmur2)
    kafka_session._hash.cache_clear()  # pyright: ignore[reportPrivateUsage]
    return seen


@pytest.fixture
def hub() -> Hub:
    return Hub(RecentFrames(1024), lambda _: None, lambda _: None)


@pytest.fixture
def session(hub: Hub) -> Session:
    return Session(None, "topic", PARTITIONS, (), hub)


class Watching:
    """As much of a watcher as the hub asks of one that comes and leaves."""

    types, live, outlet = None, False, SimpleNamespace(wake=lambda: None)


def come(hub: Hub, run_id: RunId) -> tuple[Any, Any]:
    watcher: Any = Watching()
    return hub.attach(run_id, TenantId(uuid4()), KeyId(uuid4()), watcher), watcher


def test_runs_that_are_watched_are_hashed_once_however_many_they_are(
    hub: Hub, session: Session, hashed: list[bytes]
):
    runs = [new_run_id() for _ in range(MANY)]
    for run_id in runs:
        come(hub, run_id)
    wanted = session.watched()
    assert [session.watched() for _ in range(3)] == [wanted] * 3
    assert sorted(hashed) == sorted(str(run_id).encode() for run_id in runs)
    assert wanted == {session.partition_of(run_id) for run_id in runs}


def test_a_run_is_hashed_once_for_all_that_a_connect_asks(hub: Hub, session: Session, hashed: list[bytes]):
    run_id = new_run_id()
    for _ in range(3):
        wanted = session.partition_of(run_id)
        room, _ = come(hub, run_id)
        assert session.partition_of_room(room) == wanted
        assert not session.reads(room)
    assert len(hashed) == 1


class Brokers:
    """What they say of leaders, each time that they are asked and answer."""

    def __init__(self) -> None:
        self.led, self.answers = set(range(PARTITIONS)), True
        self._known = set(self.led)
        self.cluster = self

    def available_partitions_for_topic(self, _topic: str) -> set[int]:
        return set(self._known)

    def force_metadata_update(self) -> asyncio.Future[bool]:
        news = asyncio.get_running_loop().create_future()
        news.set_result(self.answers)
        if self.answers:
            self._known = set(self.led)
        return news


async def test_a_session_ends_once_two_answers_say_that_others_have_a_leader(hub: Hub):
    brokers = Brokers()
    led = [TopicPartition("topic", number) for number in range(PARTITIONS - 1)]
    brokers.led.discard(PARTITIONS - 1)
    brokers.force_metadata_update()
    session: Any = Session(SimpleNamespace(_client=brokers), "topic", PARTITIONS, led, hub)
    for _ in range(3):
        session._see_leaders()  # and asks, as one has none
    brokers.answers = False
    session._see_leaders()
    brokers.led.add(PARTITIONS - 1)
    for _ in range(3):
        session._see_leaders()  # nobody answers
    brokers.answers = True
    session._see_leaders()
    session._see_leaders()  # the first answer
    with pytest.raises(KafkaAway):
        session._see_leaders()


def test_its_hash_is_the_one_that_kafka_takes():
    for _ in range(1000):
        key = str(uuid4()).encode()
        assert kafka_session.murmur2(key) == theirs(key)


def test_few_runs_that_nobody_watches_any_more_are_remembered(
    hub: Hub, session: Session, hashed: list[bytes]
):
    for _ in range(MANY):
        run_id = new_run_id()
        session.partition_of(run_id)
        hub.detach(*come(hub, run_id))
    assert len(hashed) == MANY
    assert kafka_session._hash.cache_info().currsize <= MANY // 2  # pyright: ignore[reportPrivateUsage]


class Shrunk:
    """A consumer whose partitions are shorter than they were."""

    def __init__(self) -> None:
        self.resumed: list[TopicPartition] = []

    async def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 5)

    def seek(self, _partition: TopicPartition, _offset: int) -> None: ...

    def resume(self, partition: TopicPartition) -> None:
        self.resumed.append(partition)


async def test_a_paused_partition_that_is_shorter_than_it_was_ends_the_session(hub: Hub) -> None:
    """The next one sees what it had reached, and tells that it is gone."""
    shorter, longer = TopicPartition("topic", 0), TopicPartition("topic", 1)
    consumer = Shrunk()
    session = Session(consumer, "topic", 2, {shorter, longer}, hub)
    session.reached = {shorter: 6, longer: 4}
    with pytest.raises(KafkaAway):
        await session.activate(shorter)
    assert (session.reached[shorter], consumer.resumed) == (6, [])
    await session.activate(longer)
    assert (session.reached[longer], consumer.resumed) == (5, [longer])
