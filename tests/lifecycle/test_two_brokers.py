"""One of two brokers dies. Where partitions have a replica, the other one becomes their leader; where they have none, the other half of the
topic does not notice."""

import re
import time
from collections.abc import AsyncGenerator, Collection, Generator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, override
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from juinie_shared.db.pool import Pool
from juinie_standalone.ports import free_ports
from juinie_standalone.servers import EmbeddedKafka
from juinie_stream_gateway.edges.kafka_session import murmur2
from juinie_testkit.client import ApiClient
from juinie_testkit.kafka import read_topic
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Seed
from juinie_testkit.stack import Stack
from juinie_testkit.waits import await_outbox_flush, await_stream_completion, eventually
from juinie_testkit.watcher import Watcher

PARTITIONS = 4
LIVE = 'juinie_stream_mode{mode="live"}'
BY_KAFKA = 'juinie_stream_records_total{verdict="next"}'
SOON = 60

pytestmark = pytest.mark.timeout(240)


class SecondBroker(EmbeddedKafka):
    """A broker of the cluster whose controller is `first`, which has been started before."""

    def __init__(self, data_dir: Path, first: EmbeddedKafka) -> None:
        super().__init__(data_dir, *free_ports(1))
        self._first = first

    @override
    def _choose_ports_and_configure(self) -> None:
        """As the first, but for its number, its port, and that it controls nothing."""
        own = (self._first.data_dir / "server.properties").read_text()
        for line, instead in (
            (r"process\.roles=.*", "process.roles=broker"),
            (r"node\.id=.*", "node.id=2"),
            (r"(advertised\.)?listeners=.*", rf"\1listeners=PLAINTEXT://127.0.0.1:{self.port}"),
            (r"log\.dirs=.*", f"log.dirs={self.data_dir / 'log'}"),
        ):
            own = re.sub(
                f"^{line}$", lambda found, instead=instead: found.expand(instead), own, flags=re.MULTILINE
            )
        self._properties.write_text(own)

    @override
    def _cluster_id(self) -> str:
        known = (self._first.data_dir / "log" / "meta.properties").read_text().splitlines()
        [cluster] = [line.partition("=")[2] for line in known if line.startswith("cluster.id=")]
        return cluster


@pytest.fixture
def brokers(tmp_path: Path) -> Generator[tuple[EmbeddedKafka, EmbeddedKafka]]:
    first = EmbeddedKafka(tmp_path / "first")
    second = SecondBroker(tmp_path / "second", first)
    try:
        first.start()
        second.start()
        yield first, second
    finally:
        second.kill()
        first.kill()


async def leaders(servers: str, topic: str) -> dict[int, int]:
    """The leader of each partition; -1 where there is none."""
    client = AIOKafkaClient(bootstrap_servers=servers)
    await client.bootstrap()
    try:
        cluster = await client.fetch_all_metadata()
        return {
            number: cluster.leader_for_partition(TopicPartition(topic, number))
            for number in cluster.partitions_for_topic(topic) or ()
        }
    finally:
        await client.close()


@pytest.fixture
async def stack(
    brokers: tuple[EmbeddedKafka, EmbeddedKafka],
    database_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncGenerator[Stack]:
    servers = ",".join(broker.bootstrap for broker in brokers)
    async with Stack(
        database_url, servers, f"juinie-{uuid4()}", tmp_path,
        environment={
            "JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS,
            "JUINIE_KAFKA_PARTITIONS": str(PARTITIONS),
            "JUINIE_KAFKA_REPLICATION_FACTOR": str(request.param),
        },
    ) as stack:  # fmt: skip
        yield stack
        print(stack.logs())


async def a_run_on_each(api: ApiClient, leader_of: dict[int, int]) -> tuple[str, str]:
    """One whose records the first broker leads, and one of the second's."""
    assert set(leader_of.values()) == {1, 2}
    runs = dict[int, str]()
    while len(runs) < 2:
        run_id = (await api.create())["run_id"]
        runs.setdefault(leader_of[(murmur2(run_id.encode()) & 0x7FFFFFFF) % PARTITIONS], run_id)
    return runs[1], runs[2]


def times_away(stack: Stack) -> int:
    """How often the gateway has said in its log that it reads no more from Kafka."""
    return stack.gateway.log.read_text(errors="replace").count('"kafka_away"')


@asynccontextmanager
async def watched_runs(
    stack: Stack, pool: Pool
) -> AsyncGenerator[tuple[ApiClient, tuple[str, str], tuple[Watcher, Watcher]]]:
    """A run of each broker's, and its watcher."""
    key = await Seed(pool).key()
    async with ApiClient(stack.api.url, key.text, timeout_seconds=SOON) as api:
        runs = await a_run_on_each(api, await leaders(stack.kafka_bootstrap_servers, stack.kafka_topic))
        async with (
            Watcher(stack.gateway.url, runs[0], key=key.text) as first,
            Watcher(stack.gateway.url, runs[1], key=key.text) as second,
        ):
            yield api, runs, (first, second)


async def is_read_from_kafka(stack: Stack, api: ApiClient, run_id: str) -> None:
    """Append to it, and to nothing else, until the gateway has something of it from Kafka."""
    before = await metric(stack.gateway.url, BY_KAFKA)

    async def is_read() -> bool:
        await api.append(run_id, ("token", "again"))
        return await metric(stack.gateway.url, BY_KAFKA) > before

    await eventually(is_read, SOON, "records of Kafka")


async def are_whole(api: ApiClient, watchers: dict[str, Watcher]) -> dict[str, int]:
    """Finish these runs, and see that their watchers have all of it once. How many events that is."""
    counts = dict[str, int]()
    for run_id, watcher in watchers.items():
        await api.finish(run_id)
        counts[run_id] = (await api.get(run_id))["last_seq"]
        await await_stream_completion(watcher)
        assert watcher.seqs == list(range(1, counts[run_id] + 1))
    return counts


async def is_on_kafka(stack: Stack, pool: Pool, counts: dict[str, int]) -> None:
    """So many events of each run, in order."""
    for run_id in counts:
        await await_outbox_flush(pool, run_id)
    wanted = {run_id.encode(): count for run_id, count in counts.items()}
    records = await read_topic(
        stack.kafka_bootstrap_servers,
        stack.kafka_topic,
        lambda records: len(events_of(records, wanted)) >= sum(wanted.values()),
    )
    events = events_of(records, wanted)
    for run, count in wanted.items():
        seqs = [int(event.rpartition(b":")[2]) for event in events if event.startswith(run)]
        assert seqs == list(range(1, count + 1))


def events_of(records: Iterable[Any], runs: Collection[bytes]) -> list[bytes]:
    """The ids of these runs' events, each where it came first."""
    return list(dict.fromkeys(dict(record.headers)["ce_id"] for record in records if record.key in runs))


@pytest.mark.parametrize("stack", [2], indirect=True)
async def test_leaders_that_move_lose_nothing(
    brokers: tuple[EmbeddedKafka, EmbeddedKafka], stack: Stack, pool: Pool
):
    servers, topic, second = stack.kafka_bootstrap_servers, stack.kafka_topic, brokers[1]
    async with watched_runs(stack, pool) as (api, runs, (one, other)):
        await until_metric(stack.gateway.url, LIVE, 1, SOON)
        second.kill()
        killed_at = time.monotonic()
        for number in range(10):
            for run_id in runs:
                await api.append(run_id, ("token", number))
        for run_id in runs:
            await await_outbox_flush(pool, run_id, timeout_seconds=SOON)
        print(f"{time.monotonic() - killed_at:.1f} s from a leader's death until all was published")
        assert set((await leaders(servers, topic)).values()) == {1}
        for watcher in (one, other):
            await watcher.until_seq(12)
        await is_read_from_kafka(stack, api, runs[1])
        print(f"{time.monotonic() - killed_at:.1f} s until watchers had it from Kafka again")
        second.start()
        counts = await are_whole(api, {runs[0]: one, runs[1]: other})
    await is_on_kafka(stack, pool, counts)


@pytest.mark.parametrize("stack", [1], indirect=True)
async def test_partitions_without_a_leader_hold_up_no_other(
    brokers: tuple[EmbeddedKafka, EmbeddedKafka], stack: Stack, pool: Pool
):
    servers, topic, second = stack.kafka_bootstrap_servers, stack.kafka_topic, brokers[1]
    async with watched_runs(stack, pool) as (api, runs, (well, dead)):
        for watcher in (well, dead):
            await watcher.until_caught_up()
        await until_metric(stack.gateway.url, LIVE, 1, SOON)
        away_before = times_away(stack)
        second.kill()

        async def is_noticed() -> bool:
            return -1 in (await leaders(servers, topic)).values()

        await eventually(is_noticed, SOON, "partitions without a leader")
        await api.append(runs[1], ("token", 0))
        await eventually(lambda: times_away(stack) > away_before, SOON, "a session that is given up")
        await until_metric(stack.gateway.url, LIVE, 1, SOON)
        before = await metric(stack.gateway.url, BY_KAFKA)
        for number in range(1, 4):  # the first one starts its run
            for run_id in runs:
                await api.append(run_id, ("token", number))
            await well.until_seq(2 + number)
            await dead.until_seq(3 + number)
        assert await metric(stack.gateway.url, LIVE) == 1, "and stays so"
        assert await metric(stack.gateway.url, BY_KAFKA) > before, "what is on the other half comes by Kafka"
        second.start()
        await await_outbox_flush(pool, runs[1], timeout_seconds=SOON)
        await dead.until_seq(6)
        await is_read_from_kafka(stack, api, runs[1])
        counts = await are_whole(api, {runs[0]: well, runs[1]: dead})
    await is_on_kafka(stack, pool, counts)
