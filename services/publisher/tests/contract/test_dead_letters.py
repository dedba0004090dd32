"""Events that can never be sent: set aside alone, told, recorded beside; everything else goes on. On real servers."""

import asyncio
from datetime import timedelta

import pytest
import structlog
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from juinie_publisher.app import serve
from juinie_publisher.settings import Settings
from juinie_publisher.store.dead_letters import DeadLetterStore
from juinie_publisher.store.deleted_runs import DeletedRunStore
from juinie_publisher.store.kept_runs import KeptRunStore
from juinie_publisher.store.outbox import OutboxStore, WindowLimits
from juinie_shared.contracts.record import read_record
from juinie_shared.domain.ids import SHARDS
from juinie_testkit.kafka import admin_of, create_topic, read_topic
from juinie_testkit.running import running
from juinie_testkit.scrape import metric
from juinie_testkit.seed import Seed
from juinie_testkit.waits import await_outbox_flush, eventually

ALL = range(SHARDS)
LARGE = "x" * 5000
PARKED = (
    "SELECT run_id, first_seq, last_seq, reason, traceparent, tenant_id, shard FROM dead_letter ORDER BY id"
)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def seed(pool):
    return Seed(pool, notify=True)


@pytest.fixture
def settings(database_url, kafka_bootstrap_servers, kafka_topic):
    return Settings(
        database_url=database_url, kafka_bootstrap_servers=kafka_bootstrap_servers, kafka_topic=kafka_topic,
        kafka_dead_letter_topic=f"{kafka_topic}.dead", kafka_partitions=2, port=0, env="test",
    )  # fmt: skip


@pytest.fixture
async def small_topic(kafka_bootstrap_servers, kafka_topic):
    """The topic takes messages of at most 3,000 bytes."""
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=2, max_message_bytes="3000")


async def ask(pool, query, *values):
    async with pool.connection() as connection:
        return await connection.fetch(query, *values)


async def fetched(pool):
    return (await OutboxStore(pool).fetch(ALL, WindowLimits())).rows


def seqs_of(records):
    seen = {}
    for record in records:
        event = read_record(record.key, record.value, record.headers)
        seen.setdefault(event.run_id, {}).setdefault(event.seq)
    return {run_id: list(seqs) for run_id, seqs in seen.items()}


async def test_first_seqs_middle_and_last_of_a_row_are_parked_and_the_rest_keeps_its_place(pool, seed):
    run = await seed.run("a")
    await seed.append(run, *[("token", n) for n in range(4)], traceparent=TRACE)  # seq 2..5
    await seed.append(run, ("token", 4))
    first, row, later = await fetched(pool)
    store = DeadLetterStore(pool)
    assert await store.park(row.id, 3, "message_too_large")
    assert [(r.id, r.first_seq, r.last_seq) for r in await fetched(pool)] == [
        (first.id, 1, 1), (row.id, 4, 5), (later.id, 6, 6),
    ]  # fmt: skip
    assert await store.park(row.id, 5, "not_encodable")
    assert [r.id for r in await fetched(pool)] == [first.id, later.id]
    (one, two) = await ask(pool, PARKED)
    tenant = (await ask(pool, "SELECT tenant_id FROM tenant"))[0]["tenant_id"]
    assert tuple(one.values()) == (run, 3, 3, "message_too_large", TRACE, tenant, row.shard)
    assert tuple(two.values()) == (run, 5, 5, "not_encodable", TRACE, tenant, row.shard)


async def test_seq_that_another_publisher_has_parked_is_not_parked_again(pool, seed):
    run = await seed.run("a")
    await seed.append(run, ("token", 1), ("token", 2))
    row = (await fetched(pool))[1]
    store = DeadLetterStore(pool)
    parked = await asyncio.gather(*(store.park(row.id, 2, "message_too_large") for _ in range(5)))
    assert sorted(parked) == [False] * 4 + [True]
    assert await store.park(row.id, 3, "message_too_large")
    assert not await store.park(row.id, 3, "message_too_large")
    assert len(await ask(pool, PARKED)) == 2


async def test_deleted_run_stays_while_a_dead_letter_of_it_lies_there(pool, seed):
    run = await seed.run("a")
    await DeadLetterStore(pool).park((await fetched(pool))[0].id, 1, "message_too_large")
    await seed.delete(run)
    assert await DeletedRunStore(pool, hidden_seconds=0).purge_some(10) == (False, False)
    await ask(pool, "DELETE FROM dead_letter")
    assert await DeletedRunStore(pool, hidden_seconds=0).purge_some(10) == (True, True)


async def test_retention_takes_nothing_of_a_run_while_a_dead_letter_of_it_lies_there(pool, seed):
    run = await seed.run("a", status="success")
    store, kept = DeadLetterStore(pool), KeptRunStore(pool)
    rows = await fetched(pool)
    await store.park(rows[0].id, 1, "message_too_large")
    await OutboxStore(pool).delete([row.id for row in rows])
    tenant = (await ask(pool, "SELECT tenant_id FROM run"))[0]["tenant_id"]
    assert (await kept.remove_events(tenant, timedelta(0), 100)).events == 0
    assert await kept.bury_runs(tenant, timedelta(0), 100) == 0
    await ask(pool, "DELETE FROM dead_letter WHERE run_id = $1", run)
    assert (await kept.remove_events(tenant, timedelta(0), 100)).events == 3
    assert await kept.bury_runs(tenant, timedelta(0), 100) == 1


@pytest.mark.usefixtures("small_topic")
async def test_event_larger_than_the_topic_takes_is_parked_and_what_is_behind_it_goes_on(
    settings, pool, seed, kafka_bootstrap_servers, kafka_topic
):
    run = await seed.run("a")
    await seed.append(run, ("token", 1), ("token", LARGE), ("token", 3), traceparent=TRACE)
    await seed.append(run, ("token", 4))
    with structlog.testing.capture_logs() as logs:
        async with running(serve, settings) as service:
            await await_outbox_flush(pool, run)
            await eventually(lambda: metric(service.url, "juinie_dead_letters"), 10, "the gauge counts it")
            dead = await read_topic(kafka_bootstrap_servers, f"{kafka_topic}.dead", len)
    records = await read_topic(kafka_bootstrap_servers, kafka_topic, lambda read: len(read) >= 4)
    assert seqs_of(records) == {run: [1, 2, 4, 5]}
    assert len(records) == 4, "no batch failed, so nothing was sent twice"
    headers = dict(dead[0].headers)
    assert headers["juinie_reason"] == b"message_too_large"
    event = read_record(dead[0].key, dead[0].value, dead[0].headers)
    assert (event.run_id, event.seq, event.traceparent) == (run, 3, TRACE)
    assert [(line["log_level"], line["seq"]) for line in logs if line["event"] == "dead_letter"] == [
        ("error", 3)
    ]
    assert [line for line in logs if line["event"] == "kafka_away"] == []


@pytest.mark.usefixtures("small_topic")
async def test_event_too_large_for_both_topics_is_recorded_without_its_json(
    settings, pool, seed, kafka_bootstrap_servers, kafka_topic
):
    await create_topic(kafka_bootstrap_servers, f"{kafka_topic}.dead", max_message_bytes="3000")
    run = await seed.run("a")
    await seed.append(run, ("token", LARGE))
    async with running(serve, settings):
        (record,) = await read_topic(kafka_bootstrap_servers, f"{kafka_topic}.dead", len)
        await eventually(lambda: recorded(pool), 10, "it is noted as recorded")
    headers = dict(record.headers)
    assert (record.key, record.value) == (str(run).encode(), None)
    assert (headers["ce_id"], headers["juinie_reason"]) == (f"{run}:2".encode(), b"message_too_large")


@pytest.mark.usefixtures("small_topic", "unreadable_limits")
async def test_behind_one_that_fits_one_too_large_for_both_topics_is_recorded_also_where_limits_cannot_be_read(
    settings, pool, seed, kafka_bootstrap_servers, kafka_topic
):
    """The broker refuses what was numbered behind the first: by that producer nothing more is sent."""
    await create_topic(kafka_bootstrap_servers, f"{kafka_topic}.dead", max_message_bytes="8000")
    run = await seed.run("a")
    await seed.append(run, ("token", LARGE), ("token", LARGE + LARGE))
    with structlog.testing.capture_logs() as logs:
        async with running(serve, settings):
            records = await read_topic(
                kafka_bootstrap_servers, f"{kafka_topic}.dead", lambda read: len(read) >= 2
            )
            await eventually(lambda: _both_recorded(pool), 20, "both are noted as recorded")
    assert [record.value is None for record in records] == [False, True]
    assert reasons_told(logs) == []


async def _both_recorded(pool):
    return await recorded(pool) == 2


@pytest.mark.usefixtures("small_topic")
async def test_dead_letter_that_does_not_fit_its_topic_is_told_and_holds_up_nothing(
    settings, pool, seed, kafka_bootstrap_servers, kafka_topic
):
    """The topic's limit is below the headers alone."""
    await create_topic(kafka_bootstrap_servers, f"{kafka_topic}.dead", max_message_bytes="200")
    run = await seed.run("a")
    await seed.append(run, ("token", LARGE), ("token", LARGE))
    with structlog.testing.capture_logs() as logs:
        async with running(serve, settings):
            await eventually(
                lambda: reasons_told(logs),
                20,
                "it is told",
            )
            await seed.append(run, ("token", 1))
            await await_outbox_flush(pool, run)
    assert reasons_told(logs) == ["message_too_large"]
    assert (len(await ask(pool, PARKED)), await recorded(pool)) == (2, 0)


@pytest.mark.usefixtures("small_topic")
async def test_topic_of_dead_letters_that_cannot_be_made_holds_up_nothing(settings, pool, seed):
    """A name that Kafka refuses stands for any topic that cannot be created or written."""
    refused = settings.model_copy(update={"kafka_dead_letter_topic": "x" * 250})
    with structlog.testing.capture_logs() as logs:
        async with running(serve, refused):
            run = await seed.run("a")
            await seed.append(run, ("token", LARGE), ("token", 2))
            await await_outbox_flush(pool, run)
            await eventually(
                lambda: reasons_told(logs),
                20,
                "it is told",
            )
            await seed.append(run, ("token", 3))
            await await_outbox_flush(pool, run)
    assert not await recorded(pool)
    async with running(serve, settings):
        await eventually(lambda: recorded(pool), 20, "the record is written once the topic can be")


async def test_dead_letter_that_is_settled_before_it_is_recorded_has_no_record(
    settings, pool, seed, kafka_bootstrap_servers, kafka_topic
):
    """What the protocol says in 8.5. A relay that is paused writes nothing to Kafka, for nobody's sake."""
    run = await seed.run("a")
    await seed.append(run, ("token", 1), ("token", 2))
    row, store = (await fetched(pool))[1], DeadLetterStore(pool)
    await store.park(row.id, 2, "message_too_large")
    await store.park(row.id, 3, "message_too_large")
    await ask(pool, "UPDATE relay_state SET paused_at = clock_timestamp()")
    async with running(serve, settings) as service:
        await eventually(lambda: metric(service.url, "juinie_relay_paused"), 10, "it feels the pause")
        await ask(
            pool, "DELETE FROM dead_letter WHERE first_seq = 2"
        )  # as the api does when one is discarded
        assert not await recorded(pool)
        await ask(pool, "UPDATE relay_state SET paused_at = NULL")
        await eventually(lambda: recorded(pool), 20, "the other one is recorded")
        dead = await read_topic(kafka_bootstrap_servers, f"{kafka_topic}.dead", len)
    assert seqs_of(dead) == {run: [3]}


async def test_limit_that_is_lowered_while_running_costs_one_failed_batch_and_no_event(
    settings, pool, seed, kafka_bootstrap_servers, kafka_topic
):
    """The broker refuses what was within the limit before: the publisher reads the limit again and goes on by it."""
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=2)
    run = await seed.run("a")
    async with running(serve, settings):
        await await_outbox_flush(pool, run)
        await set_limit(kafka_bootstrap_servers, kafka_topic, 3000)
        await seed.append(run, *[("token", "x" * 500)] * 20)
        await seed.append(run, ("token", LARGE), ("token", 1))
        await await_outbox_flush(pool, run)
    records = await read_topic(kafka_bootstrap_servers, kafka_topic, lambda read: len(read) >= 22)
    assert seqs_of(records) == {run: [*range(1, 22), 23]}
    assert [row["first_seq"] for row in await ask(pool, PARKED)] == [22]


async def set_limit(servers, topic, size):
    async with admin_of(servers) as admin:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})]
        )


def reasons_told(logs):
    """Why dead letters were not recorded, as often as it was told."""
    return [line["reason"] for line in logs if line["event"] == "dead_letters_not_recorded"]


async def recorded(pool):
    return (await ask(pool, "SELECT count(*) AS n FROM dead_letter WHERE recorded_at IS NOT NULL"))[0]["n"]


async def test_pause_stops_relaying_until_it_is_resumed_whoever_restarts(settings, pool, seed):
    """The row that the api's routes write, and the notification that they send."""
    async with running(serve, settings) as service:
        run = await seed.run("a")
        await await_outbox_flush(pool, run)
        await ask(pool, "UPDATE relay_state SET paused_at = clock_timestamp()")
        await ask(pool, "NOTIFY juinie_duties")
        await eventually(
            lambda: metric(service.url, "juinie_relay_paused"), 10, "the publisher feels the pause"
        )
        await seed.append(run, ("token", 1))
        await eventually(lambda: metric(service.url, "juinie_outbox_pending"), 10, "the row waits")
    async with running(serve, settings) as service:
        await eventually(
            lambda: metric(service.url, "juinie_relay_paused"), 10, "a restarted one feels it too"
        )
        await eventually(
            lambda: metric(service.url, "juinie_publisher_shards"), 10, "it holds its share all the same"
        )
        assert len(await fetched(pool)) == 1
        await ask(
            pool, "UPDATE relay_state SET paused_at = NULL"
        )  # without a notification: it looks by itself
        await await_outbox_flush(pool, run)
