"""Several publishers share the duties out among themselves, through one database: by leases, and by nothing else."""

import asyncio
from collections import Counter

import pytest

from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.duties import RETENTION, SWEEP, Duties, DutyTimes
from juinie_publisher.store.duties import DutyStore
from juinie_shared.domain.ids import SHARDS, new_uuid7
from juinie_testkit.waits import eventually

ALL = set(range(SHARDS))
EXPIRE = "UPDATE duty SET expires_at = now() - interval '1 second' WHERE publisher_id = $1"
UNSEEN = "UPDATE publisher SET seen_at = now() - interval '7 seconds' WHERE publisher_id = $1"


@pytest.fixture
def publisher(pool, told):
    """Make a publisher that shares in the duties whenever it is told to take a turn."""

    def of():
        publisher_id = new_uuid7()
        store = DutyStore(pool, publisher_id, "test")
        duties = Duties(store, Doorbell(), lambda: None, told.telemetry)
        duties.publisher_id = publisher_id
        return duties

    return of


async def take_turns(publishers, times=1):
    for _ in range(times):
        for duties in publishers:
            await duties.turn()


def sizes(publishers):
    return sorted((len(duties.shards) for duties in publishers), reverse=True)


def assert_each_shard_has_one_holder(publishers, shards=ALL):
    holders = Counter(shard for duties in publishers for shard in duties.shards)
    assert set(holders) == shards
    assert set(holders.values()) == {1}


def holders_of(name, publishers):
    return [duties for duties in publishers if duties.holds(name)]


async def fall_silent(pool, duties):
    """As long ago as a lease is: it was killed, or stopped, or cut off."""
    async with pool.connection() as connection:
        await connection.execute(EXPIRE, duties.publisher_id)
        await connection.execute(UNSEEN, duties.publisher_id)


async def test_one_has_all(publisher):
    duties = publisher()
    await duties.turn()
    assert duties.shards == ALL
    assert duties.holds(SWEEP)
    assert duties.holds(RETENTION)


@pytest.mark.parametrize(
    ("count", "shares"),
    [(2, [32, 32]), (3, [22, 22, 20]), (5, [13, 13, 13, 13, 12]), (70, [1] * 64 + [0] * 6)],
)
async def test_shards_are_shared_out_fairly(publisher, count, shares):
    publishers = [publisher() for _ in range(count)]
    await take_turns(publishers, times=3)
    assert sizes(publishers) == shares
    assert_each_shard_has_one_holder(publishers)
    for name in (SWEEP, RETENTION):
        assert len(holders_of(name, publishers)) == 1


async def test_many_that_take_their_turns_at_once_never_hold_a_shard_twice(publisher):
    publishers = [publisher() for _ in range(12)]
    for _ in range(6):
        await asyncio.gather(*(duties.turn() for duties in publishers))
        holders = Counter(shard for duties in publishers for shard in duties.shards)
        assert set(holders.values()) == {1}
    await take_turns(publishers, times=2)
    assert_each_shard_has_one_holder(publishers)
    assert max(sizes(publishers)) == 6


async def test_newcomer_gets_its_share_and_what_stays_is_not_moved(publisher):
    first, second = publisher(), publisher()
    await take_turns([first])
    await take_turns([second, first, second])
    assert sizes([first, second]) == [32, 32]
    before = first.shards
    await take_turns([first, second], times=3)
    assert first.shards == before
    assert first.holds(SWEEP)


async def test_what_a_leaving_one_had_is_taken_at_the_next_turn(publisher):
    first, second = publisher(), publisher()
    await take_turns([first, second, first, second])
    await first.leave()
    await second.turn()
    assert second.shards == ALL
    assert second.holds(SWEEP)
    assert second.holds(RETENTION)


async def test_what_a_silent_one_had_is_taken_when_its_lease_is_over_and_not_before(pool, publisher):
    first, second = publisher(), publisher()
    await take_turns([first, second, first, second])
    await take_turns([second], times=3)
    assert len(second.shards) == 32
    await fall_silent(pool, first)
    await second.turn()
    assert second.shards == ALL
    assert second.holds(SWEEP)


async def test_one_that_wakes_finds_what_it_lost_and_takes_its_share_again(pool, publisher, told):
    first, second = publisher(), publisher()
    await take_turns([first, second, first, second])
    await fall_silent(pool, first)
    await second.turn()
    await first.turn()
    assert first.shards == frozenset()
    assert told.count("juinie_duties_lost_total") == 34
    await take_turns([second, first])
    assert sizes([first, second]) == [32, 32]
    assert_each_shard_has_one_holder([first, second])
    assert len(holders_of(SWEEP, [first, second])) == 1


async def test_one_that_was_silent_and_lost_nothing_goes_on(pool, publisher, told):
    duties = publisher()
    await duties.turn()
    await fall_silent(pool, duties)
    await duties.turn()
    assert duties.shards == ALL
    assert told.count("juinie_duties_lost_total") == 0


async def test_both_silent_for_long_take_their_turns_at_once_without_a_deadlock(pool, publisher):
    publishers = [publisher(), publisher()]
    await take_turns(publishers, times=2)
    for _ in range(20):
        for duties in publishers:
            await fall_silent(pool, duties)
        await asyncio.gather(*(duties.turn() for duties in publishers))
        await take_turns(publishers, times=2)
        assert_each_shard_has_one_holder(publishers)


async def test_row_that_somebody_locks_holds_up_nobody(pool, publisher):
    first, second = publisher(), publisher()
    async with pool.transaction() as other:
        await other.execute("SELECT FROM duty WHERE shard < 8 FOR UPDATE")
        await first.turn()
    assert first.shards == ALL - set(range(8))
    await take_turns([second, first, second])
    assert_each_shard_has_one_holder([first, second])


async def test_publishers_of_long_ago_are_forgotten(pool, publisher):
    gone, here = publisher(), publisher()
    await gone.turn()
    async with pool.connection() as connection:
        await connection.execute("UPDATE publisher SET seen_at = now() - interval '2 hours'")
        await here.turn()
        known = await connection.fetch("SELECT publisher_id FROM publisher")
    assert [row["publisher_id"] for row in known] == [here.publisher_id]


async def test_paused_relay_relays_no_shard_and_gives_none_back(pool, publisher):
    first, second = publisher(), publisher()
    await take_turns([first, second, first, second])
    async with pool.connection() as connection:
        await connection.execute("UPDATE relay_state SET paused_at = clock_timestamp()")
        await take_turns([first, second])
        assert sizes([first, second]) == [0, 0]
        assert len(holders_of(SWEEP, [first, second])) == 1
        await connection.execute("UPDATE relay_state SET paused_at = NULL")
    await take_turns([first, second])
    assert_each_shard_has_one_holder([first, second])


async def test_running_publishers_share_hand_over_and_take_over(pool, told):
    """As in the service: each in its own loop, woken by nothing but its clock."""
    times = DutyTimes(lease_seconds=0.5, renew_seconds=0.05, retry_seconds=0.05)
    publishers = [
        Duties(DutyStore(pool, new_uuid7(), "test"), Doorbell(), lambda: None, told.telemetry, times)
        for _ in range(3)
    ]
    stops = [asyncio.Event() for _ in publishers]
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(duties.run(stop)) for duties, stop in zip(publishers, stops, strict=True)
        ]
        await eventually(lambda: sizes(publishers) == [22, 22, 20], 20, "three equal shares")
        stops[0].set()
        await running[0]
        await publishers[0].leave()
        await eventually(lambda: sizes(publishers[1:]) == [32, 32], 20, "two equal shares")
        running[1].cancel()  # it neither renews nor gives back
        await eventually(lambda: publishers[2].shards == ALL, 20, "one that has all")
        stops[2].set()
