"""What a publisher takes for its own, by its own clock, whatever happens to it between two renewals."""

import asyncio

import pytest
import structlog

from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.duties import SWEEP, Duties, DutyTimes
from juinie_publisher.core.relay import Relay
from juinie_publisher.store.duties import Share
from juinie_shared.domain.errors import DatabaseAway
from juinie_shared.domain.ids import new_run_id, shard_of

PROMISED_AFTER_LEASE_SECONDS = 2
TIMES = DutyTimes(lease_seconds=6, renew_seconds=0, retry_seconds=0)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class FakeLeases:
    """Answers what it is told to: a share, or a database that is away (None)."""

    def __init__(self, *shares):
        self.shares = list(shares)
        self.woken = 0
        self.given_back = False
        self.before_answer = lambda: None

    async def share_out(self, _lease_seconds):
        self.before_answer()
        share = self.shares.pop(0)
        if share is None:
            raise DatabaseAway
        return share

    async def give_all_back(self):
        self.given_back = True

    async def wake_others(self):
        self.woken += 1


def share(*shards, sweep=False, given_back=()):
    names = {f"shard-{shard}" for shard in shards} | ({"sweep"} if sweep else set())
    return Share(frozenset(names), frozenset(shards), frozenset(f"shard-{shard}" for shard in given_back))


class Bell:
    """Never rings. Tells how long it was waited for, and has the waiting one stop after some waits."""

    def __init__(self, stopping, waits):
        self.asked = []
        self._stopping, self._waits = stopping, waits

    async def wait(self, seconds):
        self.asked.append(seconds)
        if len(self.asked) == self._waits:
            self._stopping.set()


async def test_what_one_had_that_fell_silent_is_taken_within_two_seconds_of_its_lease(told):
    """Whoever else is there looks so often, also where a look has failed; and renews its own several times before it runs out."""
    stopping, times = asyncio.Event(), DutyTimes()
    bell = Bell(stopping, 4)
    leases = FakeLeases(share(1), None, share(1), share(1))
    await Duties(leases, bell, lambda: None, told.telemetry).run(stopping)
    assert bell.asked == [times.renew_seconds, times.retry_seconds, times.renew_seconds, times.renew_seconds]
    assert times.renew_seconds + times.retry_seconds < PROMISED_AFTER_LEASE_SECONDS
    assert times.lease_seconds > 3 * times.renew_seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(told, clock):
    def of(*shares, on_change=lambda: None):
        leases = FakeLeases(*shares)
        return Duties(leases, Doorbell(), on_change, told.telemetry, TIMES, clock), leases

    return of


async def test_nothing_is_held_before_the_first_turn(make):
    duties, _ = make()
    assert duties.shards == frozenset()
    assert not duties.holds(SWEEP)


async def test_what_a_turn_gave_is_held_for_the_length_of_the_lease(make, clock):
    duties, _ = make(share(1, 2, sweep=True))
    await duties.turn()
    clock.now += 5.9
    assert duties.shards == {1, 2}
    assert duties.holds(SWEEP)
    clock.now += 0.1
    assert duties.shards == frozenset()
    assert not duties.holds(SWEEP)


async def test_lease_counts_from_before_the_renewal_was_sent(make, clock):
    """A process that is stopped while the answer is on its way must not think that it has a whole lease left."""
    duties, leases = make(share(1, sweep=True))

    def stopped_for_a_minute():
        clock.now += 60

    leases.before_answer = stopped_for_a_minute
    await duties.turn()
    assert duties.shards == frozenset()
    assert not duties.holds(SWEEP)


async def test_what_others_took_over_is_counted_and_told(make, told):
    duties, _ = make(share(1, 2, 3, sweep=True), share(3))
    await duties.turn()
    with structlog.testing.capture_logs() as logs:
        await duties.turn()
    assert told.count("juinie_duties_lost_total") == 3
    assert told.count("juinie_publisher_shards") == 1
    assert [line["duties"] for line in logs if line["event"] == "lease_lost"] == [
        ["shard-1", "shard-2", "sweep"]
    ]


async def test_what_was_given_back_is_not_lost_and_the_others_are_woken_for_it(make, told):
    duties, leases = make(share(1, 2), share(1, given_back=[2]))
    await duties.turn()
    leases.woken = 0
    await duties.turn()
    assert told.count("juinie_duties_lost_total") == 0
    assert leases.woken == 1


async def test_others_are_woken_by_a_newcomer_and_by_no_turn_that_changes_nothing(make):
    duties, leases = make(share(), share(), share())
    for _ in range(3):
        await duties.turn()
    assert leases.woken == 1


async def test_change_is_told_once(make):
    changes = []
    duties, _ = make(share(1), share(1), share(1, 2), on_change=lambda: changes.append(1))
    for _ in range(3):
        await duties.turn()
    assert len(changes) == 2


async def test_database_that_is_away_is_asked_again_while_the_lease_runs_out(make, clock, stopping, told):
    duties, leases = make(share(1), None, None, share(1))

    def five_seconds_later():
        clock.now += 5
        if len(leases.shares) == 1:
            assert duties.shards == frozenset()
            stopping.set()

    leases.before_answer = five_seconds_later
    await duties.run(stopping)
    assert told.count("juinie_publisher_failures_total", part="duties", reason="DatabaseAway") == 2
    assert told.count("juinie_duties_lost_total") == 0


async def test_leaving_holds_nothing_gives_back_and_wakes(make, told):
    duties, leases = make(share(1, sweep=True))
    await duties.turn()
    leases.woken = 0
    await duties.leave()
    assert duties.shards == frozenset()
    assert not duties.holds(SWEEP)
    assert (leases.given_back, leases.woken) == (True, 1)
    assert told.count("juinie_duties_lost_total") == 0


async def test_leaving_without_a_database_is_no_fault(make):
    duties, leases = make(share(1))
    await duties.turn()

    async def away():
        raise DatabaseAway

    leases.give_all_back = away
    await duties.leave()
    assert duties.shards == frozenset()


async def test_relay_sends_the_rows_of_its_shards_only_and_none_once_the_lease_is_over(outbox, topic, told):
    mine, other = new_run_id(), new_run_id()
    while shard_of(other) == shard_of(mine):
        other = new_run_id()
    held = {shard_of(mine)}
    relay = Relay(outbox, outbox, topic, Doorbell(), told.telemetry, shards=lambda: held)
    for run in (mine, other):
        await outbox.append(run)
    await relay.round()
    assert (topic.seqs(mine), topic.seqs(other)) == ([1], [])
    held.clear()
    await outbox.append(mine)
    outbox.fetch = None
    assert await relay.round() is False
    assert topic.seqs(mine) == [1]


async def test_shards_that_come_are_relayed_at_once(make):
    bell = Doorbell()
    duties, _ = make(share(1), on_change=bell.ring)
    await duties.turn()
    async with asyncio.timeout(5):
        await bell.wait(3600)
