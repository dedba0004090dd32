"""A gateway that stands still for a while (SIGSTOP), as a process: nothing stale, nothing twice when it goes on."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from juinie_testkit.kafka import admin_of
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.scrape import until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import ServiceProcess, Stack
from juinie_testkit.waits import await_stream_completion
from juinie_testkit.watcher import Watcher

FROZEN_SECONDS = float(os.environ.get("JUINIE_FROZEN_SECONDS", "0"))
"""How long it stands still, besides the time that it takes to write what it misses."""
LOST = "juinie_stream_kafka_position_lost_total"
TO_THE_END = -1


@pytest.fixture
async def process(
    topic, database_url: str, kafka_bootstrap_servers: str, tmp_path: Path
) -> AsyncGenerator[ServiceProcess]:
    """A gateway in a process of its own, which reads its topic live."""
    stack = Stack(
        database_url, kafka_bootstrap_servers, topic.name, tmp_path,
        environment={"JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS},
    )  # fmt: skip
    gateway = stack.gateway
    await gateway.start()
    try:
        await until_metric(gateway.url, 'juinie_stream_mode{mode="live"}', 1)
        yield gateway
    finally:
        gateway.end()
        sys.stdout.write(gateway.tail())  # pytest shows it where the test failed


async def test_what_came_while_it_stood_still_is_seen_once_and_in_order(
    process: ServiceProcess, topic, seed: Seed, key: SeededKey
) -> None:
    run_id, quiet = await seed.run(key), await seed.run(key)
    async with (
        Watcher(process.url, run_id, key=key.text) as watcher,
        Watcher(process.url, quiet, key=key.text) as other,
    ):
        await watcher.until_caught_up()
        await other.until_caught_up()
        for seconds in (0, 0, FROZEN_SECONDS):
            process.freeze()
            first, last = await seed.append(run_id, *[("text", number) for number in range(20)])
            await topic.publish(run_id, first, last)
            await topic.publish(run_id, first, last)
            await asyncio.sleep(seconds)
            process.thaw()
            await watcher.until_seq(last)
        process.freeze()
        end, _ = await seed.finish(run_id), await seed.delete(quiet)
        process.thaw()
        await await_stream_completion(watcher)
        await other.until_closed()
    assert watcher.seqs == list(range(1, end + 1))
    assert (other.state, other.control("stream.reconnect")) == ("cut", {"reason": "deleted"})


async def test_what_kafka_dropped_before_it_was_read_comes_from_postgres(
    process: ServiceProcess, topic, kafka_bootstrap_servers: str, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    async with Watcher(process.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        _, last = await seed.append(run_id, ("text", "read"))
        await topic.publish(run_id, last)
        await watcher.until_seq(last)
        process.freeze()
        first, last = await seed.append(run_id, *[("text", number) for number in range(20)])
        await topic.publish(run_id, first, last)
        await drop_all(kafka_bootstrap_servers, topic.name)
        process.thaw()
        await watcher.until_seq(last)
        await until_metric(process.url, LOST, 1)
        end = await seed.finish(run_id)
        await topic.publish(run_id, end)
        await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, end + 1))
    assert process.log.read_text().count('"kafka_position_lost"') == 1


async def drop_all(servers: str, topic: str) -> None:
    """As retention does, at once."""
    async with admin_of(servers) as admin:
        await admin.delete_records(
            {TopicPartition(topic, number): RecordsToDelete(TO_THE_END) for number in range(3)}
        )
