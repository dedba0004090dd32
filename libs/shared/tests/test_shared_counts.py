"""Counts that processes share: each knows the sum, whoever comes, goes, dies, or cannot reach Postgres."""

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from juinie_shared.db.pool import Pool, PoolLimits, open_pool
from juinie_shared.domain.errors import DatabaseAway, Transient
from juinie_shared.runtime.shared_counts import SharedCounts
from juinie_testkit.proxy import Proxy
from juinie_testkit.waits import eventually

ROWS = "SELECT count(*) FROM shared_count"
AGE = "UPDATE shared_count SET seen_at = seen_at - interval '20 seconds'"


@pytest.fixture
async def proxied(database_url: str) -> AsyncGenerator[tuple[Proxy, Pool]]:
    async with Proxy.before(database_url) as proxy:
        limits = PoolLimits(size=2, acquire_seconds=5, connect_seconds=5, statement_seconds=5)
        pool = await open_pool(proxy.url_through(database_url), "test", limits)
        yield proxy, pool
        await pool.close()


async def rows(pool: Pool) -> int:
    async with pool.connection() as connection:
        return await connection.fetchval(ROWS)


async def exchanged(*processes: SharedCounts) -> None:
    """Twice around: what the last one wrote is known to the first."""
    for process in (*processes, *processes):
        await process.exchange()


async def test_each_process_knows_the_sum_of_all(pool: Pool):
    first, second, third = (SharedCounts(pool) for _ in range(3))
    assert (first.add("a", 2), second.add("a", 3), third.add("a"), third.add("b", 7)) == (2, 3, 1, 7)
    await exchanged(first, second, third)
    assert [process.total("a") for process in (first, second, third)] == [6, 6, 6]
    assert third.total("b") == 7
    assert first.add("a", 4) == 10


async def test_what_is_given_back_is_gone_everywhere(pool: Pool):
    first, second = SharedCounts(pool), SharedCounts(pool)
    first.add("a", 2)
    second.add("a")
    await exchanged(first, second)
    assert first.add("a", -2) == 1
    await exchanged(first, second)
    assert (first.total("a"), second.total("a"), first.names()) == (0, 1, [])


async def test_no_more_can_be_given_back_than_was_counted(pool: Pool):
    counts = SharedCounts(pool)
    counts.add("a", 2)
    assert counts.add("a", -5) == 0


async def test_what_is_given_back_during_an_exchange_is_told_in_the_next(pool: Pool):
    first, second = SharedCounts(pool), SharedCounts(pool)
    first.add("a")
    exchanging = asyncio.create_task(first.exchange())
    await asyncio.sleep(0)
    first.add("a", -1)
    await exchanging
    second.add("a")
    await exchanged(first, second)
    assert second.total("a") == 1


async def test_process_that_died_holds_nothing_for_long_and_is_swept(pool: Pool):
    dead, alive = SharedCounts(pool), SharedCounts(pool)
    dead.add("a", 5)
    alive.add("a")
    await exchanged(dead, alive)
    assert alive.total("a") == 6
    async with pool.connection() as connection:
        await connection.execute(AGE)
    await alive.exchange()
    assert (alive.total("a"), await rows(pool)) == (1, 2)
    async with pool.connection() as connection:
        for _ in range(3):
            await connection.execute(AGE)
    await alive.exchange()
    await alive._sweep()
    assert await rows(pool) == 1


async def test_process_that_leaves_takes_its_counts_along(pool: Pool):
    leaving, staying = SharedCounts(pool), SharedCounts(pool)
    leaving.add("a", 5)
    staying.add("a")
    await exchanged(leaving, staying)
    await leaving.leave()
    await staying.exchange()
    assert (staying.total("a"), await rows(pool)) == (1, 1)


async def test_process_that_counts_nothing_asks_nothing(proxied: tuple[Proxy, Pool]):
    proxy, pool = proxied
    counts = SharedCounts(pool)
    await counts.exchange()
    await counts.leave()
    assert proxy.accepted == 0


async def test_without_postgres_it_goes_on_with_what_it_knows_and_says_so_once(proxied: tuple[Proxy, Pool]):
    proxy, pool = proxied
    counts, other = SharedCounts(pool, every_seconds=0.01), SharedCounts(pool)
    counts.add("a")
    other.add("a", 2)
    await exchanged(counts, other)
    heard: list[Transient | None] = []
    running = asyncio.create_task(counts.run(heard.append))
    await proxy.refuse()
    await eventually(lambda: heard, 10, "the loss to be told")
    assert counts.add("a") == 4
    with pytest.raises(DatabaseAway):
        await counts.exchange()
    assert counts.total("a") == 4
    await counts.leave()
    await proxy.resume()
    await eventually(lambda: len(heard) > 1, 10, "the return to be told")
    running.cancel()
    assert [type(error) for error in heard] == [DatabaseAway, type(None)]
    await other.exchange()
    assert other.total("a") == 4


async def test_time_is_the_databases_whatever_this_machine_says(pool: Pool):
    counts = SharedCounts(pool)
    counts._ahead_of_monotonic += 3600
    counts.add("a")
    before = time.time()
    await counts.exchange()
    assert before - 1 < counts.now() < time.time() + 1


async def test_time_does_not_jitter_with_how_long_an_exchange_takes(pool: Pool):
    counts = SharedCounts(pool)
    counts.add("a")
    await counts.exchange()
    settled = counts._ahead_of_monotonic
    counts._set_clock(now=settled + 100.0, asked=99.0, answered=103.0)
    assert counts._ahead_of_monotonic == settled
