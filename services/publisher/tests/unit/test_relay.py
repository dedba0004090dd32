"""The relay's decisions, against an outbox and a topic in memory."""

import asyncio
import random
from contextlib import suppress
from itertools import islice
from types import SimpleNamespace
from uuid import UUID

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from juinie_publisher import telemetry
from juinie_publisher.core.backoff import RunBackoff
from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.relay import Relay
from juinie_publisher.core.rows import rows_begun, rows_within
from juinie_publisher.core.turns import OLDEST_IN_A_ROW
from juinie_publisher.store.outbox import WindowLimits
from juinie_publisher.telemetry import STUCK_SECONDS
from juinie_shared.domain.errors import DatabaseAway, KafkaAway
from juinie_shared.domain.ids import SHARDS, RunId, new_run_id, shard_of


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def relay(outbox, topic, told, clock):
    return Relay(outbox, outbox, topic, Doorbell(), told.telemetry, backoff=RunBackoff(clock=clock))


def runs_in_two_partitions(topic):
    """Two runs whose partitions and shards differ."""
    first = new_run_id()
    while True:
        second = new_run_id()
        apart = topic.partition_of(str(first).encode()) != topic.partition_of(str(second).encode())
        if apart and shard_of(first) != shard_of(second):
            return first, second


def runs_of_its_partition(topic, run, count):
    """So many others."""
    partition = topic.partition_of(str(run).encode())
    others = (
        other for other in iter(new_run_id, None) if topic.partition_of(str(other).encode()) == partition
    )
    return list(islice(others, count))


async def test_rows_are_sent_in_seq_order_and_deleted(relay, outbox, topic, told):
    run = new_run_id()
    for count in (1, 3, 2):
        await outbox.append(run, count)
    assert await relay.round() is False
    assert topic.seqs(run) == [1, 2, 3, 4, 5, 6]
    assert outbox.rows == []
    assert told.count("juinie_outbox_published_total") == 6
    assert told.count("juinie_append_to_publish_seconds_count") == 3


async def test_row_stays_until_kafka_acknowledged_it(relay, outbox, topic):
    run = new_run_id()
    await outbox.append(run)

    async def not_deleted_yet(_partition, _batch):
        assert len(outbox.rows) == 1

    topic.before_send = topic.after_send = not_deleted_yet
    await relay.round()
    assert outbox.rows == []


async def test_failed_partition_keeps_its_rows_while_the_others_go_on(relay, outbox, topic, told):
    bad, good = runs_in_two_partitions(topic)
    for run in (bad, good, bad, good):
        await outbox.append(run)

    async def refuse(partition, _batch):
        if partition == topic.partition_of(str(bad).encode()):
            raise KafkaAway

    topic.before_send = refuse
    await relay.round()
    assert topic.seqs(good) == [1, 2]
    assert [row.run_id for row in outbox.rows] == [bad, bad]
    assert told.count("juinie_publisher_failures_total", part="relay", reason="KafkaAway") == 1


async def test_a_relay_whose_every_batch_fails_says_so_once_and_when_it_goes_on(
    relay, outbox, topic, clock, monkeypatch
):
    """Kafka answers, and takes nothing: no other line tells of that."""

    async def refuse(_partition, _batch):
        raise KafkaAway

    monkeypatch.setattr(telemetry, "time", SimpleNamespace(monotonic=clock, time=clock))
    run = new_run_id()
    await outbox.append(run)
    topic.before_send = refuse
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            clock.now += STUCK_SECONDS / 2
            await relay.round()
        topic.before_send = None
        clock.now += 60
        await relay.round()
    assert topic.seqs(run) == [1]
    told = [line for line in logs if line["log_level"] != "debug"]
    assert [(line["event"], line.get("reason")) for line in told] == [
        ("relay_stuck", "KafkaAway"),
        ("relay_goes_on", None),
    ]


async def test_nothing_follows_a_failed_batch_of_its_partition(relay, outbox, topic):
    run = new_run_id()
    topic.batch_bytes = 1
    await outbox.append(run, 3)
    asked = []

    async def refuse_the_second(_partition, batch):
        asked.append([record.seq for record in batch])
        if batch[0].seq == 2:
            raise KafkaAway

    topic.before_send = refuse_the_second
    await relay.round()
    assert asked == [[1], [2]]
    assert topic.seqs(run) == [1]


async def test_large_range_goes_in_consecutive_batches_and_is_deleted_with_the_last(relay, outbox, topic):
    run = new_run_id()
    topic.batch_bytes = 250
    await outbox.append(run, 20)
    batches = []

    async def note(_partition, batch):
        batches.append(len(batch))
        assert len(outbox.rows) == 1

    topic.before_send = note
    await relay.round()
    assert len(batches) > 5
    assert topic.seqs(run) == list(range(1, 21))
    assert outbox.rows == []


async def test_half_acknowledged_range_is_sent_whole_again(relay, outbox, topic, clock):
    run = new_run_id()
    topic.batch_bytes = 1
    await outbox.append(run)
    await outbox.append(run, 2)

    async def refuse_the_third(_partition, batch):
        if batch[0].seq == 3:
            raise KafkaAway

    topic.before_send = refuse_the_third
    await relay.round()
    assert [row.first_seq for row in outbox.rows] == [2]
    topic.before_send, clock.now = None, 10.0
    await relay.round()
    assert topic.seqs(run) == [1, 2, 2, 3]


async def test_run_whose_batch_failed_waits_alone(relay, outbox, topic, clock):
    bad, good = runs_in_two_partitions(topic)
    await outbox.append(bad)
    topic.before_send = _refuse
    await relay.round()
    await outbox.append(good)
    topic.before_send = None
    await relay.round()
    assert (topic.seqs(bad), topic.seqs(good)) == ([], [1])
    clock.now = 2.0
    await relay.round()
    assert topic.seqs(bad) == [1]


async def test_row_that_kafka_never_takes_does_not_hold_up_other_shards_of_its_partition(
    relay, outbox, topic, clock
):
    topic.partitions = topic.batch_bytes = 1
    bad = new_run_id()
    good = next(run for run in iter(new_run_id, None) if shard_of(run) != shard_of(bad))

    async def refuse_the_bad(_partition, batch):
        if batch[0].run_id == bad:
            raise KafkaAway

    topic.before_send = refuse_the_bad
    for run in (bad, good, bad, good):
        await outbox.append(run)
    for _ in range(3):
        await relay.round()
        clock.now += 0.01
    assert topic.seqs(good) == [1, 2]
    assert [row.run_id for row in outbox.rows] == [bad, bad]
    clock.now = 60.0
    topic.before_send = None
    await relay.round()
    assert topic.seqs(bad) == [1, 2]


async def test_purged_events_do_not_hold_up_what_is_behind_them(relay, outbox, topic, told):
    run = new_run_id()
    await outbox.append(run, 2, missing=2)
    await outbox.append(run, 2, missing=1)
    with structlog.testing.capture_logs() as logs:
        await relay.round()
    assert topic.seqs(run) == [4]
    assert outbox.rows == []
    assert told.count("juinie_relay_events_missing_total") == 3
    assert [line["count"] for line in logs if line["event"] == "events_missing"] == [2, 1]


async def test_row_of_missing_events_stays_behind_a_failed_one(relay, outbox, topic):
    run = new_run_id()
    await outbox.append(run)
    await outbox.append(run, 1, missing=1)
    topic.before_send = _refuse
    await relay.round()
    assert len(outbox.rows) == 2


async def test_away_and_back_are_logged_once_each(relay, topic):
    await relay.round()
    topic.away = True
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            with pytest.raises(KafkaAway):
                await relay.round()
        topic.away = False
        for _ in range(3):
            await relay.round()
    assert [line["event"] for line in logs if line["event"].startswith("kafka")] == [
        "kafka_away",
        "kafka_back",
    ]


async def test_kafka_that_is_away_costs_no_query(relay, outbox, topic):
    topic.away = True
    outbox.before_fetch = pytest.fail
    with pytest.raises(KafkaAway):
        await relay.round()


async def test_full_window_is_followed_by_the_next_at_once(outbox, topic, told, stopping):
    class SilentBell(Doorbell):
        async def wait(self, _seconds):
            stopping.set()

    run = new_run_id()
    for _ in range(25):
        await outbox.append(run)
    relay = Relay(outbox, outbox, topic, SilentBell(), told.telemetry, limits=WindowLimits(rows=10))
    await relay.run(stopping)
    assert topic.seqs(run) == list(range(1, 26))


async def test_backlog_of_one_run_holds_up_no_other_and_is_soon_through(outbox, topic, told):
    """New rows of others come all the time: each is sent by the next window of each shard, though the backlog is older."""
    limits = WindowLimits(rows=20, rows_a_shard=4)
    relay = Relay(outbox, outbox, topic, Doorbell(), told.telemetry, limits)
    backlog, others = new_run_id(), list[RunId]()
    for _ in range(400):
        await outbox.append(backlog)
    rounds = 0
    while backlog in {row.run_id for row in outbox.rows}:
        others.append(next(run for run in iter(new_run_id, None) if shard_of(run) != shard_of(backlog)))
        await outbox.append(others[-1])
        await relay.round()
        rounds += 1
        assert all(topic.seqs(run) for run in others[: -OLDEST_IN_A_ROW - 1])
    assert topic.seqs(backlog) == list(range(1, 401))
    assert rounds < 400 / limits.rows_a_shard / 3


async def test_rows_of_shards_that_are_not_ours_fill_no_window(outbox, topic, told):
    others, ours = runs_in_two_partitions(topic)
    mine = set(range(SHARDS)) - {shard_of(others)}
    relay = Relay(
        outbox, outbox, topic, Doorbell(), told.telemetry, WindowLimits(rows=4), shards=lambda: mine
    )
    for _ in range(10):
        await outbox.append(others)
    await outbox.append(ours)
    await relay.round()
    assert (topic.seqs(ours), topic.seqs(others)) == ([1], [])


async def test_run_that_fails_fills_no_window(outbox, topic, told, clock):
    """Its rows are the oldest, and more than a window has room for. They are tried again among those of the other shards."""
    limits = WindowLimits(rows=4, rows_a_shard=2)
    relay = Relay(outbox, outbox, topic, Doorbell(), told.telemetry, limits, RunBackoff(clock))
    bad, good = runs_in_two_partitions(topic)

    async def refuse_the_bad(_partition, batch):
        if batch[0].run_id == bad:
            raise KafkaAway

    topic.before_send = refuse_the_bad
    for _ in range(10):
        await outbox.append(bad)
    await relay.round()
    for seq in range(1, 6):
        clock.now += 60.0
        await outbox.append(good)
        await relay.round()
        assert topic.seqs(good) == list(range(1, seq + 1))


async def test_database_that_is_away_is_waited_for(outbox, topic, told, stopping):
    run = new_run_id()
    await outbox.append(run)
    failures = 3

    def fail_at_first():
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise DatabaseAway

    async def stop(_partition, _batch):
        stopping.set()

    outbox.before_fetch, topic.after_send = fail_at_first, stop
    await Relay(outbox, outbox, topic, Doorbell(), told.telemetry).run(stopping)
    assert topic.seqs(run) == [1]
    assert told.count("juinie_publisher_failures_total", part="relay", reason="DatabaseAway") == 3


async def test_stop_lets_the_round_in_flight_end(outbox, topic, told, stopping):
    run = new_run_id()
    await outbox.append(run)
    sending, may_end = asyncio.Event(), asyncio.Event()

    async def hold(_partition, _batch):
        sending.set()
        await may_end.wait()

    topic.before_send = hold
    running = asyncio.create_task(Relay(outbox, outbox, topic, Doorbell(), told.telemetry).run(stopping))
    await sending.wait()
    stopping.set()
    may_end.set()
    await running
    assert outbox.rows == []


async def test_what_was_being_fetched_as_the_relay_was_paused_is_not_sent(outbox, topic, told):
    """The rows that a fetch gives may be younger than the pause: whoever saw the pause expects nothing after it."""
    run, held = new_run_id(), set(range(SHARDS))
    relay = Relay(outbox, outbox, topic, Doorbell(), told.telemetry, shards=lambda: held)
    row = await outbox.append(run)
    outbox.before_fetch = held.clear
    await relay.round()
    assert (topic.records, outbox.rows) == ([], [row])
    held.update(range(SHARDS))
    outbox.before_fetch = None
    await relay.round()
    assert (topic.seqs(run), outbox.rows) == ([1], [])


async def test_partition_whose_ack_is_late_holds_up_no_other(relay, outbox, topic, monkeypatch):
    monkeypatch.setattr("juinie_publisher.core.relay.PATIENCE_SECONDS", 0.01)
    slow, quick = runs_in_two_partitions(topic)
    may_arrive = asyncio.Event()

    async def be_late(partition, _batch):
        if partition == topic.partition_of(str(slow).encode()):
            await may_arrive.wait()

    topic.before_send = be_late
    await outbox.append(slow)
    await relay.round()
    for _ in range(3):
        for run in (slow, quick):
            await outbox.append(run)
        await relay.round()
    assert (topic.seqs(quick), topic.seqs(slow)) == ([1, 2, 3], [])
    may_arrive.set()
    await relay.drain()
    assert topic.seqs(slow) == [1]
    await relay.round()
    assert topic.seqs(slow) == [1, 2, 3, 4]
    assert outbox.rows == []


async def test_newer_rows_of_a_slow_partition_fill_no_window(outbox, topic, told, monkeypatch):
    """What cannot be sent now is left out of the next fetch, so that what can be is found behind it."""
    monkeypatch.setattr("juinie_publisher.core.relay.PATIENCE_SECONDS", 0.01)
    relay = Relay(outbox, outbox, topic, Doorbell(), told.telemetry, WindowLimits(rows=2))
    slow, quick = runs_in_two_partitions(topic)
    never = asyncio.Event()

    async def be_late(partition, _batch):
        if partition == topic.partition_of(str(slow).encode()):
            await never.wait()

    topic.before_send = be_late
    await outbox.append(slow)
    await relay.round()
    for run in (*runs_of_its_partition(topic, slow, 6), quick):
        await outbox.append(run)
    rounds = 0
    while not topic.seqs(quick):
        assert await relay.round() or topic.seqs(quick)
        rounds += 1
    assert rounds == 4
    never.set()
    await relay.drain()


@pytest.mark.parametrize("fails", ["late", "at once"])
async def test_thousands_of_runs_of_a_partition_that_fails_hold_up_no_other(
    outbox, topic, told, monkeypatch, fails
):
    """More than a window has room for, and always tried again: others are found behind them each time."""
    monkeypatch.setattr("juinie_publisher.core.relay.PATIENCE_SECONDS", 0.01)
    clock = Clock()
    relay = Relay(outbox, outbox, topic, Doorbell(), told.telemetry, backoff=RunBackoff(clock))
    dead, quick = runs_in_two_partitions(topic)
    may_fail = asyncio.Event()

    async def fail(partition, _batch):
        if partition == topic.partition_of(str(dead).encode()):
            if fails == "late":
                await may_fail.wait()
            raise KafkaAway

    topic.before_send = fail
    waiting = runs_of_its_partition(topic, dead, 5_000)
    for run in waiting:
        await outbox.append(run)
    for seq in range(1, 6):
        await outbox.append(quick)
        rounds = 0
        while topic.seqs(quick) != list(range(1, seq + 1)):
            await relay.round()
            rounds += 1
            clock.now += 0.01
        assert rounds <= 2 + len(waiting) // WindowLimits().rows * (1 if fails == "late" else 2)
        if fails == "late":  # and is tried again
            may_fail.set()
            await relay.drain()
            may_fail.clear()
    topic.before_send = None
    await relay.drain()
    while outbox.rows:
        await relay.round()
        clock.now += 1
    assert len(topic.records) == len(waiting) + 5


async def sent_late_with_no_fetch_meanwhile(relay, outbox, topic):
    """A run whose first row was on its way for as long as a round that fetched nothing."""
    may_arrive = asyncio.Event()

    async def be_late(_partition, _batch):
        await may_arrive.wait()

    topic.before_send = be_late
    run = new_run_id()
    await outbox.append(run)
    await relay.round()
    outbox.before_fetch = pytest.fail
    assert await relay.round() is False
    may_arrive.set()
    await relay.drain()
    outbox.before_fetch = None
    return run


async def test_nothing_is_fetched_while_no_partition_could_take_it(relay, outbox, topic, monkeypatch):
    monkeypatch.setattr("juinie_publisher.core.relay.PATIENCE_SECONDS", 0.01)
    topic.partitions = 1
    run = await sent_late_with_no_fetch_meanwhile(relay, outbox, topic)
    await outbox.append(run)
    await relay.round()
    assert topic.seqs(run) == [1, 2]


async def test_nothing_is_fetched_while_too_many_runs_wait_for_slow_partitions(
    relay, outbox, topic, monkeypatch
):
    monkeypatch.setattr("juinie_publisher.core.relay.PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr("juinie_publisher.core.relay.MOST_RUNS_LEFT_OUT", 0)
    run = await sent_late_with_no_fetch_meanwhile(relay, outbox, topic)
    await relay.round()
    assert topic.seqs(run) == [1]


async def test_late_partition_that_fails_is_tried_again_from_its_first_row(
    relay, outbox, topic, monkeypatch, clock
):
    monkeypatch.setattr("juinie_publisher.core.relay.PATIENCE_SECONDS", 0.01)
    run = new_run_id()
    may_fail = asyncio.Event()

    async def fail_late(_partition, _batch):
        await may_fail.wait()
        raise KafkaAway

    topic.before_send = fail_late
    await outbox.append(run, 2)
    await relay.round()
    await outbox.append(run)
    may_fail.set()
    await relay.drain()
    topic.before_send, clock.now = None, 10.0
    await relay.round()
    assert topic.seqs(run) == [1, 2, 3]


async def test_record_that_can_never_be_sent_is_parked_alone_and_what_is_behind_it_goes_on(
    relay, outbox, topic, told
):
    topic.max_bytes = 200
    bad, good = runs_in_two_partitions(topic)
    await outbox.append(bad, 2)
    outbox.rows[0] = _with_a_large_one(outbox.rows[0], 2)
    await outbox.append(bad, 3)
    outbox.rows[1] = _with_a_large_one(outbox.rows[1], 4)
    await outbox.append(good)
    with structlog.testing.capture_logs() as logs:
        await relay.round()
    assert (topic.seqs(bad), topic.seqs(good)) == ([1, 3, 5], [1])
    assert outbox.parked == [(bad, 2, "message_too_large"), (bad, 4, "message_too_large")]
    assert outbox.rows == []
    assert told.count("juinie_dead_letters_parked_total", reason="message_too_large") == 2
    assert [(line["log_level"], line["seq"]) for line in logs if line["event"] == "dead_letter"] == [
        ("error", 2), ("error", 4),
    ]  # fmt: skip


async def test_nothing_behind_a_bad_record_is_sent_before_it_is_parked(relay, outbox, topic):
    topic.max_bytes = 200
    run = new_run_id()
    await outbox.append(run, 3)
    outbox.rows[0] = _with_a_large_one(outbox.rows[0], 2)

    async def away(*_):
        raise DatabaseAway

    really, outbox.park = outbox.park, away
    await relay.round()
    assert topic.seqs(run) == [1]
    assert len(outbox.rows) == 1
    outbox.park = really


async def test_rest_of_a_row_keeps_its_place_before_what_came_later(relay, outbox, topic, clock):
    topic.max_bytes, topic.batch_bytes = 200, 1
    run = new_run_id()
    await outbox.append(run, 3)
    outbox.rows[0] = _with_a_large_one(outbox.rows[0], 1)
    await outbox.append(run)

    async def refuse_the_second(_partition, batch):
        if batch[0].seq == 2:
            raise KafkaAway

    topic.before_send = refuse_the_second
    await relay.round()
    assert [(row.first_seq, row.last_seq) for row in outbox.rows] == [(2, 3), (4, 4)]
    topic.before_send, clock.now = None, 10.0
    await relay.round()
    assert topic.seqs(run) == [2, 3, 4]


def _with_a_large_one(row, seq):
    """The same row, its event `seq` larger than the topic takes."""
    records = [
        msgspec.structs.replace(record, value=record.value + b" " * 300) if record.seq == seq else record
        for record in row.records
    ]
    return msgspec.structs.replace(row, records=records)


async def test_one_producer_span_links_the_appends_it_carries_up_to_64(told):
    sampled = [f"00-{n:032x}-{n:016x}-01" for n in range(1, 101)]
    unsampled = f"00-{500:032x}-{500:016x}-00"
    with told.telemetry.round() as carries:
        carries([unsampled, None, sampled[0], *sampled], 102)
    (span,) = told.spans.get_finished_spans()
    assert span.name == "juinie.run-events publish"
    assert [link.context.trace_id for link in span.links] == list(range(1, 65))
    assert span.attributes["messaging.batch.message_count"] == 102


async def test_what_a_round_tells_of_itself_holds_up_no_batch(relay, outbox, topic, told, monkeypatch):
    told_of = list[int]()
    really = told.telemetry.events_missing
    monkeypatch.setattr(told.telemetry, "events_missing", lambda *what: (told_of.append(1), really(*what)))

    async def nothing_told_yet(_partition, _batch):
        assert not told_of

    topic.before_send = nothing_told_yet
    await outbox.append(new_run_id(), 2, missing=1)
    await relay.round()
    assert told_of == [1]


def test_rows_within_counts_whole_rows_only(row_maker):
    run = new_run_id()
    rows = [row_maker(1, run, 1, 2), row_maker(2, run, 3, 3, missing=1), row_maker(3, run, 4, 5)]
    assert [len(rows_within(rows, acked)) for acked in range(5)] == [0, 0, 2, 2, 3]


def test_rows_begun_counts_every_row_that_was_touched(row_maker):
    run = new_run_id()
    rows = [row_maker(1, run, 1, 2), row_maker(2, run, 3, 3), row_maker(3, run, 4, 5)]
    assert [len(rows_begun(rows, sent)) for sent in range(6)] == [0, 1, 1, 2, 3, 3]


class Fate:
    """What happens to a batch or a delete, from a seed that hypothesis draws: batches that are late outlive its test."""

    def __init__(self, data):
        self.random = random.Random(data.draw(st.integers(0, 2**32)))
        self.batch = dict[int, str]()

    async def before_send(self, partition, _batch):
        for _ in range(self.random.randint(0, 3)):  # some are later than the round has patience for
            await asyncio.sleep(0)
        fates = ["arrives", "arrives", "is refused", "loses its ack"]
        self.batch[partition] = self.random.choice(fates)
        if self.batch[partition] == "is refused":
            raise KafkaAway

    async def after_send(self, partition, _batch):
        if self.batch[partition] == "loses its ack":
            raise KafkaAway

    def spare_the_delete(self):
        if self.random.random() < 0.5:
            raise DatabaseAway


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_whatever_fails_nothing_is_lost_and_first_times_are_in_order(
    data, fake_outbox, fake_topic, told, first_times
):
    """Batches are refused, acks and deletes are lost, and each round is another publisher's first."""
    fate, outbox, topic = Fate(data), fake_outbox(), fake_topic(partitions=2, batch_bytes=200)
    topic.before_send, topic.after_send, outbox.before_delete = (
        fate.before_send,
        fate.after_send,
        fate.spare_the_delete,
    )
    runs = [RunId(UUID(int=number)) for number in range(3)]
    for run, count in data.draw(st.lists(st.tuples(st.sampled_from(runs), st.integers(1, 3)), max_size=20)):
        await outbox.append(run, count)
        if data.draw(st.booleans()):
            await _round_of_another(outbox, topic, told)
    topic.before_send = topic.after_send = outbox.before_delete = None
    while outbox.rows:
        await _round_of_another(outbox, topic, told)
    seen = first_times(topic.records)
    assert {run: seen.get(run, []) for run in runs} == {
        run: list(range(1, outbox.last_seq[run] + 1)) for run in runs
    }


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_whatever_is_late_or_can_never_be_sent_the_rest_is_in_order_and_whole(
    data, fake_outbox, fake_topic, told, first_times
):
    """One relay without patience: every batch is late, and some fail, or hold a record that is too large."""
    fate, outbox, topic, clock = Fate(data), fake_outbox(), fake_topic(partitions=2, batch_bytes=400), Clock()
    topic.before_send, topic.after_send, topic.max_bytes = fate.before_send, fate.after_send, 200
    relay = Relay(
        outbox, outbox, topic, Doorbell(), told.telemetry, WindowLimits(rows=5, rows_a_shard=3), RunBackoff(clock)
    )  # fmt: skip
    runs, bad = [RunId(UUID(int=number)) for number in range(3)], set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("juinie_publisher.core.relay.PATIENCE_SECONDS", 0)
        for run, count in data.draw(
            st.lists(st.tuples(st.sampled_from(runs), st.integers(1, 3)), max_size=20)
        ):
            await outbox.append(run, count)
            if data.draw(st.integers(0, 4)) == 0:
                bad.add((run, outbox.last_seq[run]))
                outbox.rows[-1] = _with_a_large_one(outbox.rows[-1], outbox.last_seq[run])
            await relay.round()
            clock.now += 10
        await relay.drain()
        topic.before_send = topic.after_send = None
        while outbox.rows:
            await relay.round()
            await relay.drain()
            clock.now += 10
    seen = first_times(topic.records)
    assert {(run, seq) for run, seq, _ in outbox.parked} == bad
    assert {run: seen.get(run, []) for run in runs} == {
        run: [seq for seq in range(1, outbox.last_seq[run] + 1) if (run, seq) not in bad] for run in runs
    }


async def _round_of_another(outbox, topic, told):
    limits = WindowLimits(rows=5, rows_a_shard=3)
    with suppress(DatabaseAway):
        await Relay(outbox, outbox, topic, Doorbell(), told.telemetry, limits).round()


async def _refuse(_partition, _batch):
    raise KafkaAway
