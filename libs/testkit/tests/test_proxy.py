"""The proxy forwards, hangs, refuses and resumes, as a network would."""

import asyncio

import asyncpg
import pytest

from juinie_shared.db.pool import PoolLimits, connect, open_pool
from juinie_shared.domain.errors import DatabaseAway
from juinie_testkit.proxy import Proxy
from juinie_testkit.waits import eventually


async def test_postgres_is_reached_through_it_and_counted(database_url: str):
    async with Proxy.before(database_url) as proxy:
        connection = await connect(proxy.url_through(database_url), "test")
        assert await connection.fetchval("SELECT 1") == 1
        assert (proxy.accepted, proxy.open) == (1, 1)
        assert proxy.bytes_to_server > 0
        assert proxy.bytes_to_client > 0
        await connection.close()
        await eventually(lambda: proxy.open == 0, 30, "the connection closed on both sides")


async def test_refused_connections_come_through_again_after_resume(database_url: str):
    async with Proxy.before(database_url) as proxy:
        pool = await open_pool(proxy.url_through(database_url), "test")
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
        await proxy.refuse()
        with pytest.raises(DatabaseAway):
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")
        await proxy.resume()
        async with pool.connection() as connection:
            assert await connection.fetchval("SELECT 2") == 2
        await pool.close()


async def test_hung_bytes_arrive_after_resume(database_url: str):
    async with Proxy.before(database_url) as proxy:
        connection = await connect(proxy.url_through(database_url), "test", PoolLimits(connect_seconds=10))
        proxy.hang()
        answer = asyncio.create_task(connection.fetchval("SELECT 3"))
        done, _ = await asyncio.wait({answer}, timeout=0.05)
        assert not done
        await proxy.resume()
        assert await answer == 3
        await connection.close()


async def test_what_it_forgot_stays_silent_and_what_comes_anew_is_forwarded(database_url: str):
    async with Proxy.before(database_url) as proxy:
        url = proxy.url_through(database_url)
        before = await connect(url, "test", PoolLimits(connect_seconds=10))
        proxy.forget()
        answer = asyncio.create_task(before.fetchval("SELECT 6"))
        after = await connect(url, "test", PoolLimits(connect_seconds=10))
        assert await after.fetchval("SELECT 7") == 7
        assert not answer.done()
        before.terminate()
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await answer
        await after.close()


async def test_what_it_forgot_is_reset_when_something_is_sent_where_it_says_so(database_url: str):
    async with Proxy.before(database_url) as proxy:
        connection = await connect(proxy.url_through(database_url), "test", PoolLimits(connect_seconds=10))
        proxy.forget(resets=True)
        assert not connection.is_closed()
        with pytest.raises(asyncpg.ConnectionDoesNotExistError) as lost:
            await connection.fetchval("SELECT 8")
        assert isinstance(lost.value.__cause__, ConnectionResetError)


async def test_it_hangs_at_the_words_it_was_told_and_holds_them_back(database_url: str):
    async with Proxy.before(database_url) as proxy:
        connection = await connect(proxy.url_through(database_url), "test", PoolLimits(connect_seconds=10))
        proxy.hang_at(b"SELECT 5")
        assert await connection.fetchval("SELECT 4") == 4
        answer = asyncio.create_task(connection.fetchval("SELECT 5"))
        await eventually(lambda: proxy.hangs, 10, "the line hangs")
        assert not answer.done()
        await proxy.resume()
        assert await answer == 5
        await connection.close()
