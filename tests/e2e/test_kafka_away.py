"""Kafka stopped or killed, and started in mid-run: appends and streams go on, and the backlog drains in order afterwards."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from juinie_shared.contracts.record import read_record
from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.follower import Follower
from juinie_testkit.kafka import read_topic
from juinie_testkit.seed import Seed
from juinie_testkit.stack import Stack
from juinie_testkit.stoppable import StoppableServer
from juinie_testkit.waits import await_outbox_flush, eventually

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("end", [StoppableServer.stop, StoppableServer.kill], ids=["stopped", "killed"])
async def test_kafka_gone_and_started_again_in_mid_run(
    end: Callable[[StoppableServer], None],
    database_url: str,
    pool: Pool,
    kafka_topic: str,
    stoppable_kafka: StoppableServer,
    signing_keys: str,
    tmp_path: Path,
):
    key = await Seed(pool).key()
    made = Stack(
        database_url,
        stoppable_kafka.servers,
        kafka_topic,
        tmp_path,
        environment={"JUINIE_STREAM_TOKEN_KEYS": signing_keys},
    )
    async with made as stack, ApiClient(stack.api.url, key.text) as api:
        run_id = (await api.create())["run_id"]
        follower = Follower([stack.gateway.url], run_id, key=key.text)
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.follow(timeout_seconds=240))
            await api.append(run_id, ("token", 1))
            await await_outbox_flush(pool, run_id)
            await asyncio.to_thread(end, stoppable_kafka)
            for number in range(2, 12):
                await api.append(run_id, ("token", number))
            await eventually(lambda: len(follower.seqs) == 13, 20, "a watcher that goes on without Kafka")
            starting = group.create_task(asyncio.to_thread(stoppable_kafka.start))
            await api.append(run_id, ("token", 12))
            await starting
            await api.finish(run_id)
        await await_outbox_flush(pool, run_id, timeout_seconds=60)
        records = await read_topic(
            stoppable_kafka.servers,
            kafka_topic,
            lambda records: {_seq(record) for record in records} >= set(range(1, 16)),
        )
        print(stack.logs())
    assert follower.seqs == list(range(1, 16))
    assert len(follower.watchers) == 1
    assert list(dict.fromkeys(_seq(record) for record in records)) == list(range(1, 16))


def _seq(record) -> int:
    return read_record(record.key, record.value, record.headers).seq
