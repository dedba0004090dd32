"""A gateway on real Postgres and real Kafka, and a hand that puts records on its topic as the publisher does."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from juinie_shared.contracts.record import RunEventRecord
from juinie_shared.db.event_json import EVENT_JSON, EVENT_TIME
from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import RunId, Seq, TenantId
from juinie_stream_gateway.app import serve
from juinie_stream_gateway.settings import Settings
from juinie_testkit.kafka import create_topic, producer_of
from juinie_testkit.running import RunningService, running
from juinie_testkit.seed import Seed, SeededKey

READ_EVENTS = f"""
    SELECT e.seq, e.type, {EVENT_JSON} AS json, {EVENT_TIME} AS time, run.tenant_id
    FROM run_event AS e JOIN run USING (run_id) WHERE run_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq
"""


class Topic:
    """The run events' topic, by hand."""

    def __init__(self, producer: AIOKafkaProducer, name: str, pool: Pool) -> None:
        self._producer = producer
        self._pool = pool
        self.name = name

    async def records(self, run_id: UUID, first_seq: int, last_seq: int) -> list[RunEventRecord]:
        """The true records of stored events."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(READ_EVENTS, run_id, first_seq, last_seq)
        return [
            RunEventRecord(
                RunId(run_id), TenantId(row["tenant_id"]), Seq(row["seq"]), row["type"], row["time"],
                row["json"].encode(), None,
            )
            for row in rows
        ]  # fmt: skip

    async def publish(self, run_id: UUID, first_seq: int, last_seq: int | None = None) -> None:
        """Put the true records of these seqs on the topic."""
        for record in await self.records(run_id, first_seq, last_seq or first_seq):
            await self.put(record)

    async def put(self, record: RunEventRecord) -> None:
        await self.raw(record.key, record.value, record.headers())

    async def renew(self) -> None:
        """See the topic as it is now: its partitions may be more."""
        await self._producer.client.force_metadata_update()

    async def raw(self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        await self._producer.send_and_wait(self.name, value, key, headers=headers)


@pytest.fixture
def seed(pool: Pool) -> Seed:
    return Seed(pool)


@pytest.fixture
async def key(seed: Seed) -> SeededKey:
    return await seed.key()


@pytest.fixture
def topic_at(kafka_topic: str, pool: Pool) -> Callable[[str], AbstractAsyncContextManager[Topic]]:
    """The topic on the broker at this address."""

    @asynccontextmanager
    async def open_topic(bootstrap_servers: str) -> AsyncGenerator[Topic]:
        async with producer_of(bootstrap_servers) as producer:
            yield Topic(producer, kafka_topic, pool)

    return open_topic


@pytest.fixture
async def topic(
    kafka_bootstrap_servers: str,
    kafka_topic: str,
    topic_at: Callable[[str], AbstractAsyncContextManager[Topic]],
) -> AsyncGenerator[Topic]:
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=3)
    async with topic_at(kafka_bootstrap_servers) as topic:
        yield topic


@pytest.fixture
def settings_with(
    database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, signing_keys: str
) -> Callable[..., Settings]:
    """Settings for this test's database and topic, with changes."""

    def make(**changes: Any) -> Settings:
        return Settings.model_validate(
            {
                "database_url": database_url,
                "kafka_bootstrap_servers": kafka_bootstrap_servers,
                "kafka_topic": kafka_topic,
                "port": 0,
                "env": "test",
                "stream_token_keys": signing_keys,
                "last_call_seconds": 0,
                "cors_origins": ("https://app.example",),
                **changes,
            }
        )

    return make


@pytest.fixture
async def gateway(topic: Topic, settings_with: Callable[..., Settings]) -> AsyncGenerator[RunningService]:
    """A gateway that reads its topic live."""
    assert topic.name
    async with running(serve, settings_with()) as service:
        yield service


@pytest.fixture
async def from_postgres(settings_with: Callable[..., Settings]) -> AsyncGenerator[RunningService]:
    """A gateway whose Kafka never answers."""
    async with running(serve, settings_with(kafka_bootstrap_servers="127.0.0.1:9")) as service:
        yield service
