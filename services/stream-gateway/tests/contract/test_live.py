"""Live events: from Kafka when it is true, from Postgres when it is not, the same bytes either way."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from msgspec.structs import replace

from juinie_shared.contracts.record import RunEventRecord
from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import RunId, Seq, TenantId, new_run_id, new_uuid7
from juinie_stream_gateway.app import serve
from juinie_stream_gateway.settings import Settings
from juinie_stream_gateway.store import Page, RunRow, Store
from juinie_testkit.kafka import create_topic
from juinie_testkit.running import RunningService, running
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stoppable import StoppableServer
from juinie_testkit.waits import await_stream_completion, eventually
from juinie_testkit.watcher import Watcher

NEVER_SECONDS = 3600.0
GIVEN_UP_SECONDS = 30
"""At most, for one that does not answer any more."""


async def until_live(service: RunningService) -> None:
    await until_metric(service.url, 'juinie_stream_mode{mode="live"}', 1, 20)


@pytest.fixture
def no_tail_check(settings_with: Callable[..., Settings]) -> Settings:
    """A gateway that would never find by itself what Kafka leaves out."""
    return settings_with(tail_check_seconds=NEVER_SECONDS, tail_poll_seconds=NEVER_SECONDS)


async def test_records_reach_the_watcher_without_a_look_at_postgres(
    topic, no_tail_check: Settings, seed: Seed, key: SeededKey
) -> None:
    async with running(serve, no_tail_check) as service:
        await until_live(service)
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            first, last = await seed.append(run_id, *[("text", i) for i in range(20)])
            await topic.publish(run_id, first, last)
            await watcher.until_seq(last)
            assert await metric(service.url, "juinie_stream_gap_refills_total") == 0
            end = await seed.finish(run_id)
            await topic.publish(run_id, end)
            await await_stream_completion(watcher)
        assert watcher.seqs == list(range(1, end + 1))
        assert await metric(service.url, "juinie_append_to_socket_seconds_count") == 21


async def test_a_gap_is_filled_from_postgres(
    topic, no_tail_check: Settings, seed: Seed, key: SeededKey
) -> None:
    async with running(serve, no_tail_check) as service:
        await until_live(service)
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            _, last = await seed.append(run_id, *[("text", i) for i in range(9)])
            await topic.publish(run_id, last)
            await watcher.until_seq(last)
        assert watcher.seqs == list(range(1, last + 1))
        assert await metric(service.url, "juinie_stream_gap_refills_total") == 1


async def test_repeated_and_reordered_records_are_shown_once_in_order(
    topic, gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    await until_live(gateway)
    run_id = await seed.run(key)
    async with Watcher(gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        await seed.append(run_id, *[("text", i) for i in range(8)])
        for seq in (2, 2, 5, 3, 1, 4, 9, 8, 6, 7, 9):
            await topic.publish(run_id, seq)
        await watcher.until_seq(9)
        end = await seed.finish(run_id)
        await topic.publish(run_id, end)
        await topic.publish(run_id, end)
        await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, end + 1))


@pytest.mark.usefixtures("topic")
async def test_a_lost_last_record_is_found_by_the_tail_check(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    await until_live(gateway)
    run_id = await seed.run(key)
    async with Watcher(gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        end = await seed.finish(run_id)
        await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, end + 1))


async def test_what_lies_on_the_topic_and_is_not_true_is_never_shown(
    topic, gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    await until_live(gateway)
    run_id = await seed.run(key)
    await seed.append(run_id, ("text", 1))
    async with Watcher(gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        for record in forgeries((await topic.records(run_id, 2, 2))[0]):
            await topic.put(record)
        true = (await topic.records(run_id, 2, 2))[0]
        await topic.raw(true.key, None, true.headers())
        await topic.raw(true.key, b"garbage", [])
        await topic.raw(None, b"\xff\xfe", [("ce_id", b"\xff")])
        await topic.raw(true.key, b"x" * 900_000, true.headers())
        _, last = await seed.append(run_id, ("text", 2))
        await topic.publish(run_id, last)
        await watcher.until_seq(last)
        end = await seed.finish(run_id)
        await topic.publish(run_id, end)
        await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, end + 1))
    assert b"forged" not in watcher.raw
    assert await metric(gateway.url, 'juinie_stream_records_total{verdict="bad"}') >= 3
    assert await metric(gateway.url, 'juinie_stream_records_total{verdict="foreign"}') == 1
    assert await metric(gateway.url, 'juinie_stream_records_total{verdict="ahead"}') >= 1


def forgeries(true: RunEventRecord) -> list[RunEventRecord]:
    def saying(seq: int, event_type: str = "forged") -> bytes:
        return b'{"seq":%d,"type":"%b","time":"%b","data":"forged"}' % (
            seq,
            event_type.encode(),
            true.time.encode(),
        )

    forged = replace(true, type="forged")
    return [
        replace(forged, seq=Seq(900), value=saying(900)),
        replace(forged, seq=Seq(1), value=saying(1)),
        replace(forged, seq=Seq(2), value=saying(2)),
        replace(forged, seq=Seq(3), value=saying(4)),
        replace(forged, seq=Seq(3), value=saying(3), tenant_id=TenantId(new_uuid7())),
        replace(forged, seq=Seq(3), value=saying(3), run_id=new_run_id()),
        replace(true, seq=Seq(77), type="run.finished", value=saying(77, "run.finished")),
    ]


async def test_a_true_looking_end_on_kafka_does_not_end_the_stream(
    topic, gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    await until_live(gateway)
    run_id = await seed.run(key)
    async with Watcher(gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        true = (await topic.records(run_id, 1, 1))[0]
        value = (
            b'{"seq":2,"type":"run.finished","time":"%b","data":{"status":"success"}}' % true.time.encode()
        )
        await topic.put(replace(true, seq=Seq(2), type="run.finished", value=value))
        await watcher.until(lambda seen: seen.control("stream.reset"), 10)
        assert watcher.control("stream.end") is None
        end = await seed.finish(run_id)
        await await_stream_completion(watcher)
    assert watcher.seqs[-end:] == list(range(1, end + 1))


async def test_forged_event_that_is_exactly_the_next_stays_with_those_who_saw_it(
    topic, no_tail_check: Settings, seed: Seed, key: SeededKey
) -> None:
    """Why nobody but the publisher may write there. Who comes anew gets what Postgres has."""
    async with running(serve, no_tail_check) as service:
        await until_live(service)
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            true = (await topic.records(run_id, 1, 1))[0]
            value = b'{"seq":2,"type":"text","time":"%b","data":"forged"}' % true.time.encode()
            await topic.put(replace(true, seq=Seq(2), type="text", value=value))
            await watcher.until_seq(2)
            _, last = await seed.append(run_id, ("text", "true"))
            await topic.publish(run_id, last)
            end = await seed.finish(run_id)
            await topic.publish(run_id, end)
            await await_stream_completion(watcher)
        assert watcher.control("stream.reset") is None
        assert [frame.json["data"] for frame in watcher.events][1:-1] == ["forged"]
        async with Watcher(service.url, run_id, key=key.text) as anew:
            await await_stream_completion(anew)
        assert [frame.json["data"] for frame in anew.events][1:-1] == ["true"]


async def test_events_that_come_while_the_backfill_is_held_are_neither_lost_nor_repeated(
    topic, no_tail_check: Settings, seed: Seed, key: SeededKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go = asyncio.Event(), asyncio.Event()
    read_page = Store.read_page

    async def read_then_hold(store: Store, run_id: RunId, after_seq: Seq) -> Page | None:
        page = await read_page(store, run_id, after_seq)  # the snapshot is taken: what comes now is not in it
        held.set()
        await go.wait()
        return page

    monkeypatch.setattr(Store, "read_page", read_then_hold)
    async with running(serve, no_tail_check) as service:
        await until_live(service)
        run_id = await seed.run(key)
        await seed.append(run_id, ("text", 1), ("text", 2))
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await held.wait()
            first, last = await seed.append(run_id, ("text", 3), ("text", 4))
            await topic.publish(run_id, first - 1, last)
            seen = 'juinie_stream_records_total{verdict="ahead"}'
            await eventually(lambda: has(service, seen, 3), 10, "the records have come")
            go.set()
            await watcher.until_seq(last)
            end = await seed.finish(run_id)
            await topic.publish(run_id, end)
            await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, end + 1))


async def test_a_refill_that_hangs_does_not_hold_up_the_stop(
    topic, no_tail_check: Settings, seed: Seed, key: SeededKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught_up, hanging = asyncio.Event(), asyncio.Event()
    read_page = Store.read_page_soon

    async def read_or_hang(store: Store, run_id: RunId, after_seq: Seq) -> Page | None:
        if caught_up.is_set():
            hanging.set()
            await asyncio.Event().wait()
        return await read_page(store, run_id, after_seq)

    monkeypatch.setattr(Store, "read_page_soon", read_or_hang)
    async with running(serve, no_tail_check) as service:
        await until_live(service)
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            caught_up.set()
            _, last = await seed.append(run_id, ("text", 1), ("text", 2))
            await topic.publish(run_id, last)
            await hanging.wait()
            await service.stop(timeout_seconds=10)


async def has(service: RunningService, name: str, value: float) -> bool:
    return await metric(service.url, name) == value


async def test_two_watchers_of_a_run_get_the_same_bytes_and_others_get_none_of_them(
    topic, gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    await until_live(gateway)
    run_id, other_id = await seed.run(key), await seed.run(key)
    async with (
        Watcher(gateway.url, run_id, key=key.text) as one,
        Watcher(gateway.url, run_id, key=key.text) as two,
        Watcher(gateway.url, other_id, key=key.text) as other,
    ):
        for watcher in (one, two, other):
            await watcher.until_caught_up()
        for number in range(10):
            _, last = await seed.append(run_id, ("text", f"of the one {number}"))
            await topic.publish(run_id, last)
        end = await seed.finish(run_id)
        await topic.publish(run_id, end)
        await await_stream_completion(one, two)
        assert one.raw == two.raw
        assert other.seqs == [1]


async def test_many_watchers_join_at_random_moments_and_see_all(
    topic, gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    await until_live(gateway)
    run_id = await seed.run(key)

    async def watch(number: int) -> list[int]:
        await eventually(lambda: appended >= number, 20, "the moment to join")
        async with Watcher(gateway.url, run_id, key=key.text, after_seq=number // 2) as watcher:
            await await_stream_completion(watcher)
        return watcher.seqs

    appended = 1
    watching = [asyncio.create_task(watch(number)) for number in range(1, 60, 2)]
    for number in range(60):
        _, last = await seed.append(run_id, ("text", number))
        appended = last
        if number % 7:  # each seventh record is lost
            await topic.publish(run_id, last)
    end = await seed.finish(run_id)
    seen = await asyncio.gather(*watching)
    assert seen == [list(range(number // 2 + 1, end + 1)) for number in range(1, 60, 2)]


@pytest.mark.usefixtures("topic")
async def test_a_database_that_was_set_back_resets_the_open_stream(
    gateway: RunningService, seed: Seed, key: SeededKey, pool: Pool
) -> None:
    run_id = await seed.run(key)
    _, last = await seed.append(run_id, ("text", 1), ("text", 2))
    async with Watcher(gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_seq(last)
        async with pool.transaction() as connection:
            await connection.execute("DELETE FROM run_event WHERE run_id = $1 AND seq > 2", run_id)
            await connection.execute("UPDATE run SET last_seq = 2 WHERE run_id = $1", run_id)
        await watcher.until(lambda seen: seen.control("stream.reset"), 10)
        end = await seed.finish(run_id)
        await await_stream_completion(watcher)
    assert watcher.control("stream.reset") == {"last_seq": 2}
    assert watcher.seqs == [1, 2, 3, *range(1, end + 1)]


@pytest.mark.parametrize("others_watch", [False, True])
async def test_a_database_that_is_set_back_while_a_watcher_is_let_in_resets_it(
    others_watch: bool, settings_with: Callable[..., Settings], seed: Seed, key: SeededKey, pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run_id, second = await seed.run(key), asyncio.Event()
    _, last = await seed.append(run_id, ("text", 1), ("text", 2), ("text", 3))
    find_run = Store.find_run

    async def find_then_set_back(store: Store, found_id: RunId, tenant_id: TenantId) -> RunRow | None:
        row = await find_run(store, found_id, tenant_id)
        if second.is_set():
            async with pool.transaction() as connection:
                await connection.execute("DELETE FROM run_event WHERE run_id = $1 AND seq > 2", run_id)
                await connection.execute("UPDATE run SET last_seq = 2 WHERE run_id = $1", run_id)
        return row

    monkeypatch.setattr(Store, "find_run", find_then_set_back)
    async with (
        running(serve, settings_with(kafka_bootstrap_servers="127.0.0.1:9")) as service,
        AsyncExitStack() as stack,
    ):
        if others_watch:
            other = await stack.enter_async_context(Watcher(service.url, run_id, key=key.text))
            await other.until_seq(last)
        second.set()
        watcher = Watcher(service.url, run_id, key=key.text, after_seq=last)
        await stack.enter_async_context(watcher)
        await watcher.until(lambda seen: seen.control("stream.reset"), 20)
        end = await seed.finish(run_id)
        await await_stream_completion(watcher)
    assert watcher.control("stream.reset") == {"last_seq": 2}
    assert watcher.seqs == list(range(1, end + 1))


async def test_without_kafka_streams_go_on_from_postgres(
    from_postgres: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    async with Watcher(from_postgres.url, run_id, key=key.text) as watcher:
        for number in range(3):
            _, last = await seed.append(run_id, ("text", number))
            await watcher.until_seq(last)
        end = await seed.finish(run_id)
        await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, end + 1))
    assert await metric(from_postgres.url, 'juinie_stream_mode{mode="postgres"}') == 1


async def test_kafka_is_read_as_soon_as_the_topic_is_there(
    settings_with: Callable[..., Settings],
    kafka_bootstrap_servers: str,
    kafka_topic: str,
    seed: Seed,
    key: SeededKey,
) -> None:
    async with running(serve, settings_with()) as service:
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=2)
            await until_live(service)
            await seed.finish(run_id)
            await await_stream_completion(watcher)


@pytest.mark.parametrize("go_away", [StoppableServer.kill, StoppableServer.stop, StoppableServer.freeze])
async def test_kafka_that_was_away_in_mid_run_is_read_again(
    stoppable_kafka: StoppableServer, topic_at, settings_with: Callable[..., Settings], kafka_topic: str, seed: Seed, key: SeededKey,
    go_away: Callable[[StoppableServer], None],
) -> None:  # fmt: skip
    """Nothing is lost meanwhile; and afterwards events come from Kafka, not only from what looks behind it.

    One that is frozen keeps its connections and answers nothing, as a line does that hangs: it is given up all the same.
    """
    await create_topic(stoppable_kafka.servers, kafka_topic, partitions=2)
    async with running(serve, settings_with(kafka_bootstrap_servers=stoppable_kafka.servers)) as service:
        await until_live(service)
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            await asyncio.to_thread(go_away, stoppable_kafka)
            _, last = await seed.append(run_id, ("text", 1))
            await watcher.until_seq(last)
            await until_metric(service.url, 'juinie_stream_mode{mode="live"}', 0, GIVEN_UP_SECONDS)
            await asyncio.to_thread(stoppable_kafka.start)

            async def comes_from_kafka() -> bool:
                first, last = await seed.append(run_id, ("text", 1))
                async with topic_at(stoppable_kafka.servers) as topic:
                    await topic.publish(run_id, first, last)
                await watcher.until_seq(last)
                return await metric(service.url, 'juinie_stream_records_total{verdict="next"}') > 0

            await eventually(comes_from_kafka, 60, "an event that came over Kafka")
            await until_live(service)
            end = await seed.finish(run_id)
            await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, end + 1))
