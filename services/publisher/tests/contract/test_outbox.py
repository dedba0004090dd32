"""What the relay expects of an outbox. Postgres and the fake of the unit tests both have to keep it."""

import pytest

from juinie_publisher.store.outbox import OutboxStore, WindowLimits
from juinie_shared.domain.ids import SHARDS, new_run_id, shard_of
from juinie_testkit.seed import Json, Seed

ALL = range(SHARDS)


class PostgresOutbox:
    """The real one, with the same way to put rows in as the fake."""

    def __init__(self, pool):
        self._store, self._seed, self._runs, self._key = OutboxStore(pool), Seed(pool), set(), None
        self.fetch, self.fetch_oldest = self._store.fetch, self._store.fetch_oldest
        self.delete = self._store.delete

    async def append(self, run_id, count=1, data="null"):
        if run_id not in self._runs:
            self._runs.add(run_id)
            self._key = self._key or await self._seed.key()
            await self._seed.run(self._key, run_id=run_id)
            count -= 1
        if count:
            await self._seed.append(run_id, *[("token", Json(data))] * count)


@pytest.fixture(params=["fake", "postgres"])
def outbox(request, fake_outbox):
    return fake_outbox() if request.param == "fake" else PostgresOutbox(request.getfixturevalue("pool"))


def seqs(window, run_id):
    return [record.seq for row in window.rows for record in row.records if record.run_id == run_id]


async def test_fetch_gives_a_run_in_order_and_again_until_deleted(outbox):
    run = new_run_id()
    for count in (1, 2, 3):
        await outbox.append(run, count)
    for _ in range(2):
        window = await outbox.fetch(ALL, WindowLimits())
        assert seqs(window, run) == [1, 2, 3, 4, 5, 6]
        assert not window.full
    await outbox.delete([row.id for row in window.rows][:2])
    assert seqs(await outbox.fetch(ALL, WindowLimits()), run) == [4, 5, 6]


@pytest.fixture(params=["by shard", "oldest"])
def fetch(request, outbox):
    """Both ways give a window within the limits."""

    async def of_all(limits):
        by_shard = request.param == "by shard"
        return await (outbox.fetch(ALL, limits) if by_shard else outbox.fetch_oldest(limits))

    return of_all


async def test_fetch_takes_the_oldest_rows_up_to_the_limit_and_says_that_more_wait(outbox, fetch):
    runs = [new_run_id() for _ in range(4)]
    for _ in range(3):
        for run in runs:
            await outbox.append(run)
    window = await fetch(WindowLimits(rows=7))
    assert [seqs(window, run) for run in runs] == [[1, 2], [1, 2], [1, 2], [1]]
    assert window.full
    assert not (await fetch(WindowLimits(rows=12))).full


async def test_fetch_stops_at_the_bytes_but_gives_one_row_at_least(outbox, fetch):
    run = new_run_id()
    await outbox.append(run)
    await outbox.delete([row.id for row in (await fetch(WindowLimits())).rows])
    for _ in range(3):
        await outbox.append(run, 1, f'"{"x" * 1000}"')
    assert seqs(await fetch(WindowLimits(bytes=2500)), run) == [2, 3]
    window = await fetch(WindowLimits(bytes=10))
    assert (seqs(window, run), window.full) == ([2], True)


async def test_fetch_stops_at_the_records_but_gives_one_row_at_least(outbox, fetch):
    run = new_run_id()
    for count in (1, 400, 400, 400):
        await outbox.append(run, count)
    window = await fetch(WindowLimits(records=900))
    assert (seqs(window, run), window.full) == (list(range(1, 802)), True)
    await outbox.delete([row.id for row in window.rows])
    assert seqs(await fetch(WindowLimits(records=10)), run) == list(range(802, 1202))


async def test_fetch_leaves_out_runs_and_finds_what_is_behind_them(outbox):
    held, other = new_run_id(), new_run_id()
    while shard_of(other) != shard_of(held):
        other = new_run_id()
    for _ in range(5):
        await outbox.append(held)
    await outbox.append(other)
    window = await outbox.fetch(ALL, WindowLimits(rows=3, rows_a_shard=2), [held])
    assert (seqs(window, held), seqs(window, other), window.full) == ([], [1], False)


async def test_fetch_gives_only_the_shards_that_were_asked_for(outbox):
    runs = [new_run_id() for _ in range(8)]
    for run in runs:
        await outbox.append(run)
    wanted = {shard_of(run) for run in runs[:4]}
    window = await outbox.fetch(wanted, WindowLimits())
    assert {row.run_id for row in window.rows} == {run for run in runs if shard_of(run) in wanted}
    assert (await outbox.fetch([], WindowLimits())).rows == []


async def test_crowded_shard_leaves_room_for_the_others(outbox):
    crowded, other = new_run_id(), new_run_id()
    while shard_of(other) == shard_of(crowded):
        other = new_run_id()
    for _ in range(10):
        await outbox.append(crowded)
    await outbox.append(other)
    window = await outbox.fetch(ALL, WindowLimits(rows=10, rows_a_shard=4))
    assert (seqs(window, crowded), seqs(window, other)) == ([1, 2, 3, 4], [1])
    assert window.full


async def test_oldest_rows_are_given_whichever_shard_they_are_in(outbox):
    crowded, other = new_run_id(), new_run_id()
    for _ in range(10):
        await outbox.append(crowded)
    await outbox.append(other)
    window = await outbox.fetch_oldest(WindowLimits(rows=10, rows_a_shard=4))
    assert (seqs(window, crowded), seqs(window, other), window.full) == ([*range(1, 11)], [], True)


async def test_delete_of_rows_that_are_gone_is_no_fault(outbox):
    run = new_run_id()
    await outbox.append(run)
    ids = [row.id for row in (await outbox.fetch(ALL, WindowLimits())).rows]
    await outbox.delete(ids)
    await outbox.delete(ids)
    await outbox.delete([])
    assert (await outbox.fetch(ALL, WindowLimits())).rows == []


@pytest.mark.parametrize("gone", [range(40), range(0, 40, 2), [*range(7), *range(9, 30), 31, 33, 39], [17]])
async def test_delete_takes_these_rows_and_no_other(outbox, gone):
    """Ids lie side by side, or among those of others."""
    run = new_run_id()
    for _ in range(40):
        await outbox.append(run)
    rows = (await outbox.fetch(ALL, WindowLimits())).rows
    await outbox.delete([rows[place].id for place in reversed(gone)])
    left = (await outbox.fetch(ALL, WindowLimits())).rows
    assert [row.id for row in left] == [row.id for place, row in enumerate(rows) if place not in gone]


async def test_rows_of_one_and_of_several_events_come_in_their_order(outbox, fetch):
    run = new_run_id()
    for count in (1, 3, 1, 2, 1):
        await outbox.append(run, count)
    assert seqs(await fetch(WindowLimits()), run) == list(range(1, 9))
