"""Kafka lost altogether, by a topic deleted or a broker wiped: watchers notice nothing, and Postgres gives it all back."""

import asyncio
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from juinie_shared.contracts.record import read_record
from juinie_shared.db.pool import Pool
from juinie_standalone.servers.kafka import EmbeddedKafka
from juinie_testkit.client import ApiClient
from juinie_testkit.follower import Follower
from juinie_testkit.kafka import delete_topic, read_topic
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import Stack
from juinie_testkit.waits import await_outbox_flush, eventually

pytestmark = pytest.mark.timeout(300)

RUNS = 5
EVER = {"created_after": "2020-01-01T00:00:00Z", "created_before": "2120-01-01T00:00:00Z"}


async def feed(api: ApiClient, run_ids: list[str], appends: int) -> None:
    for number in range(appends):
        await asyncio.gather(*(api.append(run_id, ("token", number)) for run_id in run_ids))


def first_times(records: list[object]) -> dict[str, list[int]]:
    seen: dict[str, dict[int, None]] = {}
    for record in records:
        event = read_record(record.key, record.value, record.headers)  # pyright: ignore[reportAttributeAccessIssue]
        seen.setdefault(str(event.run_id), {}).setdefault(event.seq)
    return {run_id: list(seqs) for run_id, seqs in seen.items()}


@pytest.fixture
def broker(tmp_path: Path) -> Generator[EmbeddedKafka]:
    """A broker of this test's own."""
    made = EmbeddedKafka(tmp_path / "kafka")
    made.start()
    yield made
    made.kill()


async def test_lost_topic_is_filled_again_from_postgres_and_no_watcher_notices(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    run_ids = [(await api.create())["run_id"] for _ in range(RUNS)]
    followers = [Follower([stack.gateway.url], run_id, key=key.text) for run_id in run_ids]
    async with asyncio.TaskGroup() as group:
        for follower in followers:
            group.create_task(follower.follow(240))
        await feed(api, run_ids, 10)
        await delete_topic(stack.kafka_bootstrap_servers, stack.kafka_topic)
        await feed(api, run_ids, 10)
        for run_id in run_ids:
            await api.finish(run_id)
    assert [follower.seqs for follower in followers] == [list(range(1, 24))] * RUNS
    assert [len(follower.watchers) for follower in followers] == [1] * RUNS
    await assert_postgres_gives_it_back(stack, stack_pool, api, dict.fromkeys(run_ids, 23))


async def test_wiped_broker_is_filled_again_from_postgres_and_read_again_and_no_watcher_notices(
    broker: EmbeddedKafka, database_url: str, pool: Pool, kafka_topic: str, signing_keys: str, tmp_path: Path
):
    settings = {"JUINIE_STREAM_TOKEN_KEYS": signing_keys}
    made = Stack(database_url, broker.bootstrap, kafka_topic, tmp_path, environment=settings)
    key = await Seed(pool).key()
    async with made as stack, ApiClient(stack.api.url, key.text) as api:
        run_ids = [(await api.create())["run_id"] for _ in range(RUNS)]
        followers = [Follower([stack.gateway.url], run_id, key=key.text) for run_id in run_ids]
        async with asyncio.TaskGroup() as group:
            for follower in followers:
                group.create_task(follower.follow(240))
            await feed(api, run_ids, 10)

            async def is_read() -> bool:
                """What was appended before the topic was there, or known to the gateway, came from Postgres."""
                await feed(api, run_ids, 1)
                return await from_kafka(stack) > 0

            await eventually(is_read, 60, "an event that came over Kafka")
            await asyncio.to_thread(broker.kill)
            shutil.rmtree(broker.data_dir / "log")
            await feed(api, run_ids, 5)
            await until_metric(stack.gateway.url, 'juinie_stream_mode{mode="live"}', 0)
            before = await from_kafka(stack)
            starting = group.create_task(asyncio.to_thread(broker.start))
            await feed(api, run_ids, 5)
            await starting

            async def is_read_again() -> bool:
                await feed(api, run_ids[:1], 1)
                return await from_kafka(stack) > before

            await eventually(is_read_again, 60, "an event that came over Kafka, wiped as it was")
            last_seqs = [(await api.finish(run_id))["last_seq"] for run_id in run_ids]
        print(stack.logs())
        assert [follower.seqs for follower in followers] == [list(range(1, last + 1)) for last in last_seqs]
        assert [len(follower.watchers) for follower in followers] == [1] * RUNS
        await assert_postgres_gives_it_back(stack, pool, api, dict(zip(run_ids, last_seqs, strict=True)))


async def from_kafka(stack: Stack) -> float:
    """How many events the gateway took from Kafka: each was the next of its run."""
    return await metric(stack.gateway.url, 'juinie_stream_records_total{verdict="next"}')


async def assert_postgres_gives_it_back(
    stack: Stack, pool: Pool, api: ApiClient, last_seqs: dict[str, int]
) -> None:
    """Republished, every event of these runs is on the topic."""
    for run_id in last_seqs:
        await await_outbox_flush(pool, run_id, 60)
    answer = await api.http.post("/v1/admin/republish", json=EVER)
    assert (answer.status_code, answer.json()) == (202, {"records": sum(last_seqs.values())})
    for run_id in last_seqs:
        await await_outbox_flush(pool, run_id)

    def all_is_there(records: list[object]) -> bool:
        seen = first_times(records)
        return all(
            sorted(seen.get(run_id, [])) == list(range(1, last + 1)) for run_id, last in last_seqs.items()
        )

    await read_topic(stack.kafka_bootstrap_servers, stack.kafka_topic, all_is_there, 60)
