"""A gateway of several processes: watchers go to the one that reads their run's partition, and are never without one."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from aiokafka.partitioner import murmur2
from prometheus_client.parser import text_string_to_metric_families

from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import RunId
from juinie_testkit.any_service import AnyService
from juinie_testkit.family import children_of
from juinie_testkit.kafka import create_topic
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.raw_stream import raw_stream
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import START_SECONDS, ServiceProcess
from juinie_testkit.waits import eventually

PROCESSES, PARTITIONS, RUNS, WATCHERS, MAX_STREAMS = 2, 4, 8, 3, 14

pytestmark = pytest.mark.timeout(300)


def owner_of(run_id: RunId) -> int:
    """The process that reads its partition, by what Kafka's own clients do."""
    return (murmur2(str(run_id).encode()) & 0x7FFFFFFF) % PARTITIONS % PROCESSES


async def told(process: ServiceProcess, name: str, **labels: str) -> Sequence[float] | None:
    """A metric, by process; None while one of them does not answer."""
    try:
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, timeout=10) as client:
            text = (await client.get(f"{process.url}/metrics")).text
    except httpx.TransportError:
        return None
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    values = {
        sample.labels["process"]: sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }
    return [values[str(index)] for index in range(PROCESSES)] if len(values) == PROCESSES else None


@pytest.fixture
async def key(pool: Pool) -> SeededKey:
    return await Seed(pool).key()


@pytest.fixture
async def runs(pool: Pool, key: SeededKey) -> list[RunId]:
    """As many of each process."""
    found: list[list[RunId]] = [[] for _ in range(PROCESSES)]
    while min(map(len, found)) < RUNS // PROCESSES:
        run = await Seed(pool).run(key, status="running")
        found[owner_of(run)].append(run)
    return [run for some in found for run in some[: RUNS // PROCESSES]]


@pytest.fixture
async def gateway(
    services: dict[str, AnyService],
    database_url: str,
    kafka_bootstrap_servers: str,
    kafka_topic: str,
    tmp_path: Path,
) -> AsyncGenerator[ServiceProcess]:
    await create_topic(kafka_bootstrap_servers, kafka_topic, PARTITIONS)
    process = services["stream-gateway"].process(
        tmp_path,
        DATABASE_URL=database_url,
        KAFKA_BOOTSTRAP_SERVERS=kafka_bootstrap_servers,
        JUINIE_KAFKA_TOPIC=kafka_topic,
        JUINIE_PROCESSES=str(PROCESSES),
        JUINIE_MAX_STREAMS=str(MAX_STREAMS),
    )
    process.launch()
    try:
        await process.until_ready()
        await eventually(lambda: _reads(process), START_SECONDS, "both processes read Kafka")
        yield process
    finally:
        await asyncio.to_thread(process.end)


async def _reads(process: ServiceProcess) -> bool:
    return await told(process, "juinie_stream_mode", mode="live") == [1.0, 1.0]


@asynccontextmanager
async def watched(process: ServiceProcess, runs: Sequence[RunId], key: SeededKey) -> AsyncGenerator[None]:
    """So many watchers of each, who have its first event."""
    async with AsyncExitStack() as streams:
        for run in [*runs] * WATCHERS:
            stream = await streams.enter_async_context(raw_stream(process.port, run, key.text))
            await asyncio.wait_for(stream.read_until(b"\nid: 1\n"), START_SECONDS)
        yield


async def is_served(process: ServiceProcess, run: RunId, key: SeededKey) -> bool:
    """Whether a watcher gets what the run has. One whose process dies, or has only begun, comes again, as clients do."""
    with suppress(ConnectionError):
        async with raw_stream(process.port, run, key.text) as stream:
            while b"\nid: 1\n" not in stream.received:
                if not await asyncio.wait_for(stream.read(), START_SECONDS):
                    return False
            return True
    return False


async def test_all_watchers_of_a_run_are_where_its_partition_is_read(
    gateway: ServiceProcess, runs: list[RunId], key: SeededKey
):
    async with watched(gateway, runs, key):
        each = RUNS // PROCESSES * WATCHERS

        async def where_they_should_be() -> bool:
            return await told(gateway, "juinie_streams_open") == [each, each]

        await eventually(where_they_should_be, START_SECONDS, f"{each} at each of the two")
        handed_over = await eventually(
            lambda: told(gateway, "juinie_stream_handed_over_total"), START_SECONDS, "both to answer"
        )
        assert sum(handed_over or ()) > 0


async def test_what_is_asked_badly_is_answered_by_whoever_it_reaches(
    gateway: ServiceProcess, runs: list[RunId], key: SeededKey
):
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, base_url=gateway.url) as client:
        for run in runs:
            path = f"/v1/runs/{run}/stream"
            assert (await client.get(path)).status_code == 401
            headers = {"Authorization": f"Bearer {key.text}"}
            assert (await client.get(f"{path}?after_seq=x", headers=headers)).status_code == 400
            assert (await client.get(f"/v1/runs/{key.tenant_id}/stream", headers=headers)).status_code == 404
            assert (await client.post(path, headers=headers)).status_code == 405


async def test_who_watches_is_served_by_a_sibling_where_the_process_that_should_is_full(
    gateway: ServiceProcess, runs: list[RunId], key: SeededKey
):
    """Of all places that the processes have, none stays empty for whose run it is."""
    (run, *_) = [run for run in runs if owner_of(run) == 1]
    async with AsyncExitStack() as streams:
        for _ in range(MAX_STREAMS * PROCESSES):
            stream = await streams.enter_async_context(raw_stream(gateway.port, run, key.text))
            await asyncio.wait_for(stream.read_until(b"\nid: 1\n"), START_SECONDS)
        held = await eventually(lambda: told(gateway, "juinie_streams_open"), START_SECONDS, "both to answer")
        assert held == [MAX_STREAMS, MAX_STREAMS]
        assert not await is_served(gateway, run, key)


async def test_who_watches_is_served_though_the_process_that_should_is_away(
    gateway: ServiceProcess, runs: list[RunId], key: SeededKey
):
    """It dies again and again, and its replacements come the later; meanwhile its sibling has all."""
    victim = max(children_of(gateway.pid))
    others = children_of(gateway.pid) - {victim}
    for _ in range(4):
        os.kill(victim, signal.SIGKILL)
        for run in runs:
            await eventually(lambda run=run: is_served(gateway, run, key), 10, "an answer, from whichever")
        (victim,) = await eventually(
            lambda dead=victim: children_of(gateway.pid) - others - {dead}, START_SECONDS, "another process"
        )
