"""Is what was acknowledged also on Kafka? A sample of the last runs, read from the topic when all has ended."""

import asyncio
import time
from contextlib import aclosing
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from deployment import TOPIC, Deployment

from juinie.torture.published import Published
from juinie.torture.scene import Scene
from juinie_testkit.kafka import admin_of

_RUNS = 100
_AT_MOST_BACK_SECONDS = 600
_CLOCKS_SECONDS = 60
"""The broker's clock gives records their time; and publishers learn so late, at most, of a topic that grew."""
_READ_SECONDS = 300
"""All faults are over by then: a topic that cannot be read in this time is itself a fault."""


async def check_kafka(scene: Scene, deployment: Deployment) -> None:
    """Every event of the sample has a record with its bytes, in the order of the run.

    Of runs that were deleted, all that anybody was shown: their events go only when they have been published.
    """
    since = max(deployment.topic_since, time.time() - _AT_MOST_BACK_SECONDS)
    possible = [run for run in scene.concluded if run.began_at > since]
    sample = scene.chance.sample(possible, min(_RUNS, len(possible)))
    published = Published()
    for run in sample:
        async with aclosing(scene.client.pages(run.run_id)) as pages:
            published.expect(run.run_id, [event async for page in pages for event in page])
    deleted = [run for run in scene.deleted if run.began_at > since]
    for run in deleted:
        published.expect_shown(run.run_id, run.shown)
    if sample or deleted:
        first = min(run.began_at for run in (*sample, *deleted))
        async with asyncio.timeout(_READ_SECONDS):
            await _read(deployment.kafka.bootstrap, first - _CLOCKS_SECONDS, published)
        published.tell(scene.checker.findings, ordered=first > deployment.topic_grew_at + _CLOCKS_SECONDS)
    looked_for = f"{len(sample)} runs looked for, {len(deleted)} that were deleted"
    print(f"on Kafka: {looked_for}", flush=True)


async def _read(servers: str, since: float, published: Published) -> None:
    """All that the topic has from this time on."""
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = await _partitions(servers)
        consumer.assign(partitions)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        begins = await consumer.offsets_for_times(dict.fromkeys(partitions, int(since * 1000)))
        waiting = {partition for partition in partitions if begins[partition] is not None}
        for partition in waiting:
            consumer.seek(partition, begins[partition].offset)
        while waiting:
            for partition, records in (await consumer.getmany(*waiting, timeout_ms=500)).items():
                for record in records:
                    published.take((record.key or b"").decode(errors="replace"), record.value or b"")
                if await consumer.position(partition) >= ends[partition]:
                    waiting.discard(partition)
    finally:
        await consumer.stop()


async def _partitions(servers: str) -> list[TopicPartition]:
    async with admin_of(servers) as admin:
        (described,) = await admin.describe_topics([TOPIC])
    return [TopicPartition(TOPIC, partition["partition"]) for partition in described["partitions"]]
