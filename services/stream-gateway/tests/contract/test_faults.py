"""What a gateway does while what it needs is cut, wiped, grown or full of rubbish: nothing is lost, skipped or repeated."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from aiokafka.admin import NewPartitions
from aiokafka.errors import UnknownTopicOrPartitionError
from structlog.testing import capture_logs
from structlog.typing import EventDict

from juinie_shared.db.keys import revoke_key
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import DatabaseAway
from juinie_stream_gateway.app import serve
from juinie_stream_gateway.settings import Settings
from juinie_testkit.kafka import admin_of, create_topic, delete_topic
from juinie_testkit.proxy import Proxy
from juinie_testkit.raw_stream import LAST_CHUNK, raw_stream
from juinie_testkit.running import RunningService, running
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import await_stream_completion, eventually
from juinie_testkit.watcher import Watcher

NEVER_SECONDS = 3600.0
LIVE = 'juinie_stream_mode{mode="live"}'
AWAY = DatabaseAway.code


@asynccontextmanager
async def cut_off_gateway(
    settings_with: Callable[..., Settings], database_url: str, **changes: float
) -> AsyncGenerator[tuple[RunningService, Proxy]]:
    """A gateway that reads Kafka live, and whose way to Postgres can be cut."""
    async with Proxy.before(database_url) as proxy:
        settings = settings_with(database_url=proxy.url_through(database_url), **changes)
        async with running(serve, settings) as service:
            await until_metric(service.url, LIVE, 1)
            yield service, proxy
            await proxy.resume()


@pytest.mark.usefixtures("topic")
async def test_checks_that_fail_are_counted_and_told_once(
    settings_with: Callable[..., Settings], database_url: str, seed: Seed, key: SeededKey
) -> None:
    def told(logs: list[EventDict]) -> list[tuple[str, str]]:
        return sorted((line["check"], line["event"]) for line in logs if line["event"].startswith("check_"))

    with capture_logs() as logs:
        async with (
            cut_off_gateway(settings_with, database_url, credential_check_seconds=0.1) as (gateway, proxy),
            Watcher(gateway.url, await seed.run(key), key=key.text) as watcher,
        ):
            await watcher.until_caught_up()
            await proxy.refuse()
            for check in ("credential", "tail"):
                name = f'juinie_stream_check_failures_total{{check="{check}"}}'
                await eventually(lambda name=name: is_above(gateway.url, name, 2), 30, f"{name} rises")
            failed = [("credential", "check_failed"), ("tail", "check_failed")]
            assert told(logs) == failed
            await proxy.resume()
            both = sorted([*failed, ("credential", "check_works_again"), ("tail", "check_works_again")])
            await eventually(lambda: len(told(logs)) == len(both), 30, "both checks work again")
            assert told(logs) == both


async def is_above(url: str, name: str, floor: float) -> bool:
    return await metric(url, name) > floor


@pytest.mark.usefixtures("topic")
async def test_tables_that_are_away_for_a_while_end_no_stream(
    settings_with: Callable[..., Settings], pool: Pool, seed: Seed, key: SeededKey
) -> None:
    """As while a database is restored: whoever watches goes on, and so does the process."""
    run_id = await seed.run(key)
    async with (
        running(serve, settings_with(credential_check_seconds=0.1)) as gateway,
        Watcher(gateway.url, run_id, key=key.text) as watcher,
    ):
        await watcher.until_caught_up()
        async with pool.connection() as connection:
            for table, check in (("run", "tail"), ("api_key", "credential")):
                name = f'juinie_stream_check_failures_total{{check="{check}"}}'
                failures = await metric(gateway.url, name)
                await connection.execute(f"ALTER TABLE {table} RENAME TO taken_away")
                await eventually(
                    lambda name=name, failures=failures: is_above(gateway.url, name, failures + 2),
                    30,
                    f"{name} rises",
                )
                await connection.execute(f"ALTER TABLE taken_away RENAME TO {table}")
        end = await seed.finish(run_id)
        await await_stream_completion(watcher, timeout_seconds=60)
    assert watcher.seqs == list(range(1, end + 1))


@pytest.mark.parametrize("how", ["refused", "hanging"])
async def test_cut_from_postgres_alone_open_streams_go_on_from_kafka_and_stop_at_a_gap(
    how: str, topic, settings_with: Callable[..., Settings], database_url: str, seed: Seed, key: SeededKey
) -> None:
    async with cut_off_gateway(settings_with, database_url) as (service, proxy):
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            if how == "refused":
                await proxy.refuse()
            else:
                proxy.hang()
            first, last = await seed.append(run_id, *[("text", number) for number in range(5)])
            await topic.publish(run_id, first, last)
            await watcher.until_seq(last)

            _, ahead = await seed.append(run_id, ("text", "lost on its way"), ("text", "ahead"))
            await topic.publish(run_id, ahead)
            await until_metric(service.url, 'juinie_stream_records_total{verdict="ahead"}', 1)
            assert watcher.seqs == list(range(1, last + 1))
            await new_ones_are_told_to_come_back(service, run_id, key)
            assert watcher.seqs == list(range(1, last + 1))

            await proxy.resume()
            end = await seed.finish(run_id)
            await await_stream_completion(watcher, timeout_seconds=60)
    assert watcher.seqs == list(range(1, end + 1))


async def test_a_key_revoked_while_a_gateway_is_cut_off_is_felt_there_once_it_is_not(
    topic, settings_with: Callable[..., Settings], database_url: str, pool: Pool, seed: Seed, key: SeededKey
) -> None:
    """What the protocol says in 2.1: there and then its open streams go on, but nobody comes in."""
    failures = 'juinie_stream_check_failures_total{check="credential"}'
    async with cut_off_gateway(settings_with, database_url, credential_check_seconds=0.1) as (service, proxy):
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            await proxy.refuse()
            async with pool.connection() as connection:
                await revoke_key(connection, key.key_id)
            before = await metric(service.url, failures)
            await eventually(lambda: is_above(service.url, failures, before + 2), 30, f"{failures} rises")
            first, last = await seed.append(run_id, ("text", "to whom it no more may concern"))
            await topic.publish(run_id, first, last)
            await watcher.until_seq(last)
            await new_ones_are_told_to_come_back(service, run_id, key)

            await proxy.resume()
            await watcher.until_closed(30)
            assert watcher.state == "cut"
            assert watcher.control("stream.reconnect") == {"reason": "credential"}
            async with Watcher(service.url, run_id, key=key.text) as returned:
                assert returned.status == 401


async def new_ones_are_told_to_come_back(service: RunningService, run_id: UUID, key: SeededKey) -> None:
    async with raw_stream(service.port, run_id, key.text) as client:
        received = await client.read_all()
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"event: stream.reconnect" in received
    assert LAST_CHUNK not in received


async def test_a_topic_that_is_deleted_and_made_again_is_noticed_and_hides_nothing(
    topic, gateway: RunningService, kafka_bootstrap_servers: str, seed: Seed, key: SeededKey
) -> None:
    await until_metric(gateway.url, LIVE, 1)
    run_id = await seed.run(key)
    async with Watcher(gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        _, last = await seed.append(run_id, *[("text", number) for number in range(20)])
        await topic.publish(run_id, 2, last)
        await watcher.until_seq(last)
        await delete_topic(kafka_bootstrap_servers, topic.name)
        await made_again(kafka_bootstrap_servers, topic.name)
        _, last = await seed.append(run_id, ("text", "after the loss"))
        await watcher.until_seq(last)
        await until_metric(gateway.url, LIVE, 1, 60)
        await until_metric(gateway.url, "juinie_stream_kafka_position_lost_total", 1)
        end = await seed.finish(run_id)
        await topic.publish(run_id, end)
        await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, end + 1))


async def made_again(servers: str, topic: str) -> None:
    """Kafka deletes in its own time."""

    async def made() -> bool:
        try:
            await create_topic(servers, topic, partitions=3)
        except UnknownTopicOrPartitionError:
            return False
        return True

    await eventually(made, 30, "the topic is there again")


async def test_partitions_that_come_while_it_runs_are_read_and_what_moved_is_seen_once(
    topic, settings_with: Callable[..., Settings], kafka_bootstrap_servers: str, seed: Seed, key: SeededKey
) -> None:
    never = {"tail_check_seconds": NEVER_SECONDS, "tail_poll_seconds": NEVER_SECONDS}
    async with running(serve, settings_with(**never)) as service:
        await until_metric(service.url, LIVE, 1)
        runs = [await seed.run(key) for _ in range(12)]
        watchers = [Watcher(service.url, run_id, key=key.text) for run_id in runs]
        await asyncio.gather(*(watcher.__aenter__() for watcher in watchers))
        try:
            await asyncio.gather(*(watcher.until_caught_up() for watcher in watchers))
            await grow(kafka_bootstrap_servers, topic.name, 12)
            await topic.renew()

            async def all_have_news() -> bool:
                """Only Kafka tells of it here: who gets anything has its run's new partition read."""
                behind = [run for run, watcher in zip(runs, watchers, strict=True) if watcher.seqs == [1]]
                for run_id in behind:
                    _, last = await seed.append(run_id, ("text", "moved"))
                    await topic.publish(run_id, last)
                return not behind

            await eventually(all_have_news, 60, "every watcher gets what lies on the new partitions")
            for watcher, run_id in zip(watchers, runs, strict=True):
                _, last = await seed.append(run_id, ("text", "the last"))
                await topic.publish(run_id, last)
                await watcher.until_seq(last)
                assert watcher.seqs == list(range(1, last + 1))
        finally:
            await asyncio.gather(*(watcher.drop() for watcher in watchers))


async def grow(servers: str, topic: str, partitions: int) -> None:
    async with admin_of(servers) as admin:
        await admin.create_partitions({topic: NewPartitions(partitions)})


async def test_an_event_that_kafka_refuses_for_its_size_is_seen_all_the_same(
    topic, settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    """It never becomes a record. Those behind it do, and are ahead of it: it is read where it is."""
    async with running(serve, settings_with()) as service:
        await until_metric(service.url, LIVE, 1)
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            _, huge = await seed.append(run_id, ("text", "x" * 250_000))
            _, last = await seed.append(run_id, ("text", "behind it"))
            await topic.publish(run_id, last)
            await watcher.until_seq(last)
            end = await seed.finish(run_id)
            await topic.publish(run_id, end)
            await await_stream_completion(watcher)
    assert huge in watcher.seqs
    assert watcher.seqs == list(range(1, end + 1))
