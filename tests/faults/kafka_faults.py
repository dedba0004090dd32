"""Kafka that restarts, dies, stays away; a topic that is deleted or grows; rubbish and forgeries put in by hand."""

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from aiokafka.admin import NewPartitions
from aiokafka.errors import KafkaError
from deployment import PARTITIONS, TOPIC, Deployment

from juinie.torture.schedule import Fault
from juinie_shared.contracts.record import RunEventRecord
from juinie_shared.domain.ids import RunId, Seq, TenantId
from juinie_testkit.kafka import admin_of, create_topic, delete_topic, producer_of

AREA = "kafka"
_MOST_PARTITIONS = 12
_FOREIGN = 0.25
_FAR_AHEAD = 1_000_000
_LOOK_EVERY_SECONDS = 0.1
AWAY = "kafka away"


def kafka_faults(
    deployment: Deployment,
    chance: random.Random,
    a_run: Callable[[], str | None],
    a_long_run: Callable[[], str | None],
    away_seconds: float,
) -> list[Fault]:
    """`a_run` gives a run that is written to now; `a_long_run` one that has long had its first events."""
    kafka = deployment.kafka

    async def stop() -> None:
        await deployment.aside(kafka.stop)

    async def kill() -> None:
        await deployment.aside(kafka.kill)

    async def start() -> None:
        await deployment.aside(kafka.start)

    by_hand, topic = _ByHand(deployment, chance, a_run, a_long_run), _Topic(deployment)
    return [
        Fault("kafka restarted", AREA, stop, start, (0.2, 3.0)),
        Fault("kafka killed", AREA, kill, start, (0.2, 3.0)),
        Fault(AWAY, AREA, kill, start, (away_seconds, away_seconds)),
        Fault("kafka: topic deleted and made again", AREA, topic.delete, topic.make_again, (0.5, 4.0)),
        Fault("kafka: partitions added", AREA, topic.grow, seconds=(0.5, 2.0)),
        Fault("kafka: rubbish put in", AREA, by_hand.rubbish, seconds=(0.5, 2.0)),
        Fault("kafka: forgeries put in", AREA, by_hand.forgeries, seconds=(0.5, 2.0)),
    ]


class _Topic:
    def __init__(self, deployment: Deployment) -> None:
        self._deployment, self._servers = deployment, deployment.kafka.bootstrap

    async def delete(self) -> None:
        await delete_topic(self._servers, TOPIC)

    async def make_again(self) -> None:
        """Unless the publisher has: what counts is that there is one."""
        async with admin_of(self._servers) as admin:
            while TOPIC not in await admin.list_topics():
                with suppress(KafkaError):
                    await create_topic(self._servers, TOPIC, PARTITIONS)
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
        self._deployment.topic_since = time.time()

    async def grow(self) -> None:
        async with admin_of(self._servers) as admin:
            described = await admin.describe_topics([TOPIC])
            partitions = len(described[0]["partitions"])
            if 0 < partitions < _MOST_PARTITIONS:
                await admin.create_partitions({TOPIC: NewPartitions(partitions + 1)})
                self._deployment.topic_grew_at = time.time()


class _ByHand:
    """Records that no publisher wrote."""

    def __init__(
        self,
        deployment: Deployment,
        chance: random.Random,
        a_run: Callable[[], str | None],
        a_long_run: Callable[[], str | None],
    ) -> None:
        self._deployment, self._servers = deployment, deployment.kafka.bootstrap
        self._chance, self._a_run, self._a_long_run = chance, a_run, a_long_run

    async def rubbish(self) -> None:
        """Bytes of no meaning, null values, foreign and known keys, large and small."""
        async with producer_of(self._servers) as producer:
            for _ in range(50):
                key = self._chance.choice((None, b"", b"stranger", (self._a_run() or "").encode()))
                values = (
                    b"",
                    b"{}",
                    b"\xff\xfe",
                    self._chance.randbytes(100_000),
                    *((None,) if key is not None else ()),
                )
                value = self._chance.choice(values)  # a client of Kafka's sends no record without both
                await producer.send_and_wait(TOPIC, value, key)

    async def forgeries(self) -> None:
        """Records as the publisher would write them, of events that are not: far ahead, long past, an end.

        None is a run's next: whoever may write that is trusted, as a publisher is.
        """
        async with producer_of(self._servers) as producer:
            for _ in range(50):
                record = self._forged(self._a_long_run() or str(uuid.uuid4()))
                await producer.send_and_wait(TOPIC, record.value, record.key, headers=record.headers())

    def _forged(self, run_id: str) -> RunEventRecord:
        seq = self._chance.choice((1, 2, 3, _FAR_AHEAD, _FAR_AHEAD + 1))
        name = self._chance.choice(("torture", "run.finished", "run.started"))
        time = "2026-11-23T12:00:00.000000Z"
        value = f'{{"seq":{seq},"type":"{name}","time":"{time}","data":{{"status":"success"}}}}'
        foreign = self._chance.random() < _FOREIGN  # the others get as far as the gateway's splice
        tenant = TenantId(uuid.uuid4()) if foreign else self._deployment.tenant_id
        return RunEventRecord(
            RunId(uuid.UUID(run_id)), tenant, Seq(seq), name, time, value.encode(), traceparent=None
        )
