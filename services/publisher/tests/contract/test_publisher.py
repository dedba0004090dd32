"""What the publisher promises its neighbours, as a whole, on real servers."""

import asyncio
import re
from contextlib import suppress
from datetime import datetime
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from juinie_publisher.app import serve
from juinie_publisher.core.duties import DutyTimes
from juinie_publisher.edges.kafka import KafkaTopic
from juinie_publisher.settings import Settings
from juinie_publisher.store.outbox import OutboxStore
from juinie_shared.contracts.record import read_record
from juinie_shared.db.keys import ensure_dev_key
from juinie_shared.domain.errors import DatabaseAway, DevKeyOutsideDev, PortTaken
from juinie_shared.domain.ids import SHARDS, KeyId, new_uuid7
from juinie_testkit.golden import golden_records
from juinie_testkit.kafka import delete_topic, read_topic
from juinie_testkit.running import running
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Json, Seed, SeededKey
from juinie_testkit.waits import StillMissing, await_outbox_flush, eventually

LOCK_RUNS = "SELECT FROM run FOR UPDATE"


@pytest.fixture
def settings(database_url, kafka_bootstrap_servers, kafka_topic):
    return Settings(
        database_url=database_url, kafka_bootstrap_servers=kafka_bootstrap_servers, kafka_topic=kafka_topic,
        kafka_partitions=4, port=0, env="test",
    )  # fmt: skip


@pytest.fixture
def seed(pool):
    return Seed(pool, notify=True)


@pytest.fixture
def read(kafka_bootstrap_servers, kafka_topic):
    """All records of the topic once there are at least `count`."""

    async def of(count, servers=kafka_bootstrap_servers):
        return await read_topic(servers, kafka_topic, lambda records: len(records) >= count, 60)

    return of


def first_times_of(records):
    seen = {}
    for record in records:
        event = read_record(record.key, record.value, record.headers)
        seen.setdefault(event.run_id, {}).setdefault(event.seq)
    return {run_id: list(seqs) for run_id, seqs in seen.items()}


async def flushed(pool):
    async def empty():
        async with pool.connection() as connection:
            return await connection.fetchval("SELECT count(*) FROM outbox") == 0

    await eventually(empty, 60, "an empty outbox")


@pytest.mark.parametrize("golden", golden_records(), ids=lambda golden: golden.name)
async def test_record_is_the_golden_one_byte_for_byte(golden, settings, pool, seed, read):
    event = read_record(golden.key, golden.value, golden.headers)
    data = msgspec.json.decode(golden.value, type=dict[str, msgspec.Raw])["data"]
    await _execute(pool, "INSERT INTO tenant (tenant_id, name) VALUES ($1, 'golden')", event.tenant_id)
    await seed.run(SeededKey("", event.tenant_id, KeyId(new_uuid7())), run_id=event.run_id)
    await _execute(pool, "DELETE FROM outbox")
    await _execute(pool, "UPDATE run SET last_seq = $1", event.seq - 1)
    row = (event.type, Json(bytes(data).decode()), datetime.fromisoformat(event.time))
    await seed.append(event.run_id, row, traceparent=event.traceparent)
    async with running(serve, settings):
        await await_outbox_flush(pool, event.run_id)
    (record,) = await read(1)
    assert (record.key, record.headers, record.value) == (golden.key, golden.headers, golden.value)


async def test_many_writers_on_many_runs_each_in_order(settings, pool, seed, read):
    key = await seed.key()
    runs = [await seed.run(key) for _ in range(10)]

    async def write(run):
        for number in range(20):
            await seed.append(run, *[("token", {"n": number})] * (1 + number % 3))

    async with running(serve, settings):
        await asyncio.gather(*(write(run) for run in runs for _ in range(3)))
        await flushed(pool)
    expected = {run: list(range(1, 2 + 3 * 39)) for run in runs}
    assert first_times_of(await read(10 * 118)) == expected


async def test_a_run_that_nobody_can_sweep_is_overdue_until_it_is_swept(settings, pool, seed):
    run = await seed.run(await seed.key(), status="running")
    late = "UPDATE run SET deadline_at = clock_timestamp(), due_at = clock_timestamp() - interval '1 minute' WHERE run_id = $1"
    await _execute(pool, late, run)
    async with pool.connection() as writer:
        await writer.execute(f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; {LOCK_RUNS}")
        async with running(serve, settings) as service:
            await until_metric(service.url, "juinie_runs_overdue", 1)
            await writer.execute("ROLLBACK")
            await until_metric(service.url, "juinie_runs_overdue", 0)


async def test_notification_wakes_and_the_poll_stands_behind_it(settings, pool, seed, monkeypatch):
    async with running(serve, settings):
        run = await seed.run("a")
        await await_outbox_flush(pool, run)
        silent = Seed(pool)
        await silent.append(run, ("token", 1))
        await await_outbox_flush(pool, run)
    monkeypatch.setattr("juinie_publisher.core.relay.POLL_SECONDS", 3600)
    with structlog.testing.capture_logs() as logs:
        async with running(serve, settings):
            await eventually(lambda: _events(logs, "outbox_listening"), 10, "the publisher listens")
            await seed.append(run, ("token", 2))
            await await_outbox_flush(pool, run)


async def test_lost_sessions_are_made_again(settings, pool, seed):
    with structlog.testing.capture_logs() as logs:
        async with running(serve, settings):
            await eventually(lambda: _events(logs, "outbox_listening"), 10, "the publisher listens")
            async with pool.connection() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name LIKE 'juinie-publisher%'"
                )
            await eventually(lambda: len(_events(logs, "outbox_listening")) > 1, 10, "it listens again")
            run = await seed.run("a")
            await await_outbox_flush(pool, run)


async def test_delete_that_fails_after_the_ack_sends_again_and_in_order(
    settings, pool, seed, read, monkeypatch
):
    run = await seed.run("a")
    await seed.append(run, ("token", 1), ("token", 2))

    async def fail(_store, _ids):
        raise DatabaseAway

    really = OutboxStore.delete
    monkeypatch.setattr(OutboxStore, "delete", fail)
    async with running(serve, settings):
        await read(6)
        await seed.append(run, ("token", 3))
        monkeypatch.setattr(OutboxStore, "delete", really)
        await await_outbox_flush(pool, run)
    records = await read(8)
    assert first_times_of(records) == {run: [1, 2, 3, 4]}


async def test_two_publishers_only_add_copies(settings, pool, seed, read):
    key = await seed.key()
    runs = [await seed.run(key) for _ in range(5)]
    async with running(serve, settings), running(serve, settings):
        for number in range(30):
            await asyncio.gather(*(seed.append(run, ("token", number)) for run in runs))
        await flushed(pool)
    assert first_times_of(await read(5 * 31)) == {run: list(range(1, 32)) for run in runs}


async def test_append_of_a_thousand_large_events_arrives_whole(settings, pool, seed, read):
    run = await seed.run("a")
    await seed.append(run, *[("token", "x" * 4000)] * 1000)
    async with running(serve, settings):
        await await_outbox_flush(pool, run)
    assert first_times_of(await read(1001)) == {run: list(range(1, 1002))}


async def test_deleted_run_is_published_first_and_then_removed(settings, pool, seed, read):
    run = await seed.run("a", status="success")
    await seed.delete(run)

    async def gone():
        async with pool.connection() as connection:
            return await connection.fetchval("SELECT count(*) FROM run_event WHERE run_id = $1", run) == 0

    async with running(serve, settings):
        await eventually(gone, 15, "the deleted run's events are removed")
    assert first_times_of(await read(3)) == {run: [1, 2, 3]}


async def test_topic_deleted_while_running_comes_back_by_itself(
    settings, pool, seed, kafka_bootstrap_servers, kafka_topic
):
    async with running(serve, settings):
        run = await seed.run("a")
        await await_outbox_flush(pool, run)
        await delete_topic(kafka_bootstrap_servers, kafka_topic)
        records, last_seq = [], 1
        while not records:  # a topic that is being deleted may still take a record, and lose it
            _, last_seq = await seed.append(run, ("token", 1))
            await await_outbox_flush(pool, run)
            with suppress(StillMissing):
                records = await read_topic(kafka_bootstrap_servers, kafka_topic, len, timeout_seconds=3)
    seqs = first_times_of(records)[run]
    assert seqs == list(range(seqs[0], last_seq + 1))
    assert seqs[0] > 1
    assert {record.timestamp_type for record in records} == {1}, (
        "created by us, not by a broker that was asked for it"
    )


async def test_broker_killed_under_load_loses_nothing_and_drains_after(settings, pool, read, stoppable_kafka):
    seed = Seed(pool, notify=True)
    mine = settings.model_copy(update={"kafka_bootstrap_servers": stoppable_kafka.servers})
    run = await seed.run("a")
    with structlog.testing.capture_logs() as logs:
        async with running(serve, mine) as service:
            for number in range(50):
                await seed.append(run, ("token", number))
            await asyncio.to_thread(stoppable_kafka.kill)
            for number in range(50):
                await seed.append(run, ("token", number))
            await eventually(lambda: _events(logs, "kafka_away"), 20, "Kafka is found away")
            await eventually(lambda: _answers(service, "/readyz", 503), 10, "not ready")
            await eventually(
                lambda: metric(service.url, "juinie_outbox_pending"), 10, "the gauge shows the backlog"
            )
            await asyncio.to_thread(stoppable_kafka.start)
            await await_outbox_flush(pool, run, 60)
            await eventually(lambda: _answers(service, "/readyz", 200), 10, "ready again")
    assert first_times_of(await read(101, stoppable_kafka.servers)) == {run: list(range(1, 102))}
    assert len(_events(logs, "kafka_away")) == len(_events(logs, "kafka_back"))


async def test_starts_without_kafka_keeps_rows_and_stops_at_once(settings, pool, seed, unused_tcp_port):
    run = await seed.run("a")
    nowhere = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"})
    async with running(serve, nowhere, wait_ready=False) as service:
        await eventually(
            lambda: metric(service.url, "juinie_outbox_pending"), 10, "the gauge shows the backlog"
        )
        assert await _answers(service, "/livez", 200)
        assert await _answers(service, "/readyz", 503)
        await service.stop(timeout_seconds=5)
    async with running(serve, settings):
        await await_outbox_flush(pool, run)


async def test_starts_without_schema_and_says_so(settings, empty_database_url):
    bare = settings.model_copy(update={"database_url": type(settings.database_url)(empty_database_url)})
    async with running(serve, bare, wait_ready=False) as service:

        async def says_so():
            return "juinie-api migrate" in (await _get(service, "/readyz")).text

        await eventually(says_so, 10, "readiness names the migration")


async def test_development_key_outside_dev_ends_the_process(settings, pool):
    async with pool.connection() as connection:
        await ensure_dev_key(connection)
    with pytest.RaisesGroup(DevKeyOutsideDev, flatten_subgroups=True):
        await serve(settings, asyncio.Event())


async def test_stop_finishes_the_batch_in_flight(settings, pool, seed, monkeypatch):
    run = await seed.run("a")
    sent, gone_on = asyncio.Event(), asyncio.Event()
    real_send = KafkaTopic.send

    async def send_slowly(topic: KafkaTopic, *batch: Any) -> int:
        sent.set()
        await gone_on.wait()
        return await real_send(topic, *batch)

    monkeypatch.setattr(KafkaTopic, "send", send_slowly)
    async with running(serve, settings) as service:
        await sent.wait()
        stopping = asyncio.create_task(service.stop(timeout_seconds=30))
        await eventually(lambda: service.asked_to_stop, 30, "it was asked to stop")
        gone_on.set()
        await stopping
    await await_outbox_flush(pool, run, timeout_seconds=0)
    await _no_session_left(pool)


async def test_taken_port_is_told_at_once(settings):
    async with running(serve, settings) as service:
        with pytest.raises(PortTaken):
            await serve(settings.model_copy(update={"port": service.port}), asyncio.Event())


async def test_hanging_work_is_cut_after_the_drain_time(settings, seed, monkeypatch):
    sending = asyncio.Event()

    async def hang(*_):
        sending.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("juinie_publisher.edges.kafka.KafkaTopic.send", hang)
    await seed.run("a")
    quick = settings.model_copy(update={"drain_seconds": 0.2})
    async with running(serve, quick) as service:
        await sending.wait()
        await service.stop(timeout_seconds=5)


async def test_metrics_have_their_names_and_no_ids(settings, pool, seed):
    async with running(serve, settings) as service:
        run = await seed.run("a")
        await await_outbox_flush(pool, run)
        text = (await _get(service, "/metrics")).text
    for name in (
        "juinie_outbox_pending", "juinie_outbox_oldest_age_seconds", "juinie_outbox_published_total",
        "juinie_append_to_publish_seconds_bucket", "juinie_relay_rounds_total",
    ):  # fmt: skip
        assert re.search(rf"^{name}\b", text, re.MULTILINE), name
    assert str(run) not in text


async def test_what_a_stopped_publisher_had_is_taken_because_it_says_so(settings, monkeypatch):
    """Neither a lease nor a turn of the other one's own comes to an end meanwhile: an hour is a long time."""
    hour = DutyTimes(lease_seconds=3600, renew_seconds=3600)
    monkeypatch.setattr("juinie_publisher.core.duties.DutyTimes", lambda: hour)
    async with running(serve, settings) as one:
        await until_metric(one.url, "juinie_publisher_shards", SHARDS)
        async with running(serve, settings) as two:
            await until_metric(two.url, "juinie_publisher_shards", SHARDS / 2)
            await one.stop()
            await until_metric(two.url, "juinie_publisher_shards", SHARDS)


async def test_several_run_in_one_process(settings):
    async with running(serve, settings) as one, running(serve, settings) as two:
        assert one.port != two.port


async def _execute(pool, sql, *args):
    async with pool.connection() as connection:
        await connection.execute(sql, *args)


async def _no_session_left(pool):
    async def none():
        async with pool.connection() as connection:
            return not await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'juinie-publisher%'"
            )

    await eventually(none, 30, "no session of the publisher is left")


def _events(logs, name):
    return [line for line in logs if line["event"] == name]


async def _get(service, path):
    async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
        return await client.get(path)


async def _answers(service, path, status):
    return (await _get(service, path)).status_code == status
