"""The pool is bounded in every wait, and says in our words what went wrong."""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from juinie_shared.db.pool import Connection, Pool, PoolLimits, connect, open_pool, plain_url
from juinie_shared.domain.errors import (
    DatabaseAway,
    DatabaseBusy,
    DatabaseRefuses,
    NoConnection,
    RunLocked,
    SchemaAway,
    Transient,
)
from juinie_testkit.backing.docker import free_port
from juinie_testkit.proxy import Proxy
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

LOCK_RUN = "SELECT FROM run WHERE run_id = $1 FOR UPDATE"


async def test_pool_opens_while_postgres_is_away_and_says_so_when_asked():
    pool = await open_pool(f"postgresql://juinie@127.0.0.1:{free_port()}/juinie", "test")
    with pytest.raises(DatabaseAway):
        async with pool.connection():
            pass
    await pool.close()


async def test_single_connection_says_that_postgres_is_away():
    with pytest.raises(DatabaseAway):
        await connect(f"postgresql://juinie@127.0.0.1:{free_port()}/juinie", "test")


async def test_exhausted_pool_is_busy_and_recovers(database_url: str):
    pool = await open_pool(database_url, "test", PoolLimits(size=1, acquire_seconds=2))
    async with pool.connection():
        with pytest.raises(NoConnection):
            async with pool.connection():
                pass
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pool.close()


class Lending:
    """The driver's pool, of connections that each take `seconds` to be made."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.lent, self.given_back = 0, list[float | None]()

    async def acquire(self, timeout: float | None = None) -> object:
        del timeout
        await asyncio.sleep(self._seconds)
        self.lent += 1
        return object()

    async def release(self, _lent: object, *, timeout: float | None = None) -> None:
        self.given_back.append(timeout)


async def test_connections_are_made_ahead_for_no_longer_than_one_may_take():
    lending = Lending(0.1)
    async with asyncio.timeout(30):
        await Pool(lending, PoolLimits(connect_seconds=0.35)).warm(1000)
    assert 1 <= lending.lent == len(lending.given_back)


async def test_a_connection_is_given_back_within_its_own_limit():
    lending = Lending(0)
    pool = Pool(lending, PoolLimits(acquire_seconds=5, statement_seconds=5, release_seconds=0.3))
    async with pool.connection():
        pass
    assert lending.given_back == [0.3]


async def test_row_that_stays_locked_locks_its_run_alone(database_url: str):
    pool = await open_pool(database_url, "test", PoolLimits(lock_seconds=0.1))
    run_id, other = await Seed(pool).run("a"), await Seed(pool).run("a")
    async with pool.transaction() as holder:
        await holder.execute(LOCK_RUN, run_id)
        with pytest.raises(RunLocked):
            async with pool.transaction() as late:
                await late.execute(LOCK_RUN, run_id)
        async with pool.transaction() as free:
            await free.execute(LOCK_RUN, other)
    await pool.close()


async def test_statement_that_takes_too_long_is_ended_as_busy(database_url: str):
    pool = await open_pool(database_url, "test", PoolLimits(statement_seconds=0.1))
    async with pool.connection() as connection:
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.execute("SELECT pg_sleep(60)")
    with pytest.raises(DatabaseBusy):
        async with pool.connection() as connection:
            await connection.execute("SELECT pg_sleep(60)")
    await pool.close()


async def test_hung_postgres_is_away_and_not_waited_for_without_end(database_url: str):
    async with Proxy.before(database_url) as proxy:
        limits = PoolLimits(statement_seconds=1, acquire_seconds=10, connect_seconds=10)
        pool = await open_pool(proxy.url_through(database_url), "test", limits)
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
        proxy.hang()
        with pytest.raises(Transient):
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")
        await proxy.resume()
        await pool.close()


async def _rest_together(pool: Pool, count: int) -> list[int]:
    """Use so many at once, and give them back; the pids of their sessions."""
    async with AsyncExitStack() as held:
        lent = [await held.enter_async_context(pool.connection()) for _ in range(count)]
        return [await connection.fetchval("SELECT pg_backend_pid()") for connection in lent]


async def _in_a_transaction(pool: Pool) -> None:
    async with pool.transaction() as connection:
        await connection.fetchval("SELECT 1")


async def _by_itself(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.fetchval("SELECT 1")


@pytest.mark.parametrize("resets", [False, True], ids=["silent", "reset"])
@pytest.mark.parametrize("use", [_by_itself, _in_a_transaction])
async def test_a_line_that_forgot_all_connections_costs_one_statement(
    database_url: str, use: Callable[[Pool], Awaitable[None]], *, resets: bool
):
    async with Proxy.before(database_url) as proxy:
        limits = PoolLimits(size=4, statement_seconds=0.5, release_seconds=0.5)
        pool = await open_pool(proxy.url_through(database_url), "test", limits)
        before = await _rest_together(pool, 4)
        proxy.forget(resets=resets)
        with pytest.raises(DatabaseAway):
            await use(pool)
        assert set(await _rest_together(pool, 4)).isdisjoint(before)
        await pool.close(within_seconds=5)


async def test_one_who_leaves_a_line_that_forgot_it_spares_the_next_ones_its_fate(database_url: str):
    async with Proxy.before(database_url) as proxy:
        limits = PoolLimits(size=4, statement_seconds=30, release_seconds=0.1)
        pool = await open_pool(proxy.url_through(database_url), "test", limits)
        before = await _rest_together(pool, 4)
        proxy.forget()
        leaving = asyncio.create_task(_by_itself(pool))
        await eventually(lambda: proxy.forgotten_bytes, 10, "its statement is on its way")
        leaving.cancel()
        await asyncio.wait({leaving})
        assert set(await _rest_together(pool, 4)).isdisjoint(before)
        await pool.close(within_seconds=5)


async def _until_the_server_gives_up(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("SELECT pg_sleep(60)")


async def _until_we_give_up(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.fetch("SELECT pg_sleep(60)", timeout=0.01)


async def _until_it_is_cut(pool: Pool) -> None:
    """As a request whose patience ends before its statement has had its time."""
    async with pool.connection() as connection:
        asyncio.get_running_loop().call_later(0.01, connection.terminate)
        await connection.execute("SELECT pg_sleep(60)")


async def test_a_statement_that_is_cut_off_costs_its_own_connection(database_url: str):
    pool = await open_pool(database_url, "test", PoolLimits(size=4))
    before = await _rest_together(pool, 4)
    with pytest.raises(Transient):
        await _until_it_is_cut(pool)
    assert len(set(await _rest_together(pool, 4)) & set(before)) == 3
    await pool.close(within_seconds=5)


@pytest.mark.parametrize("wait", [_until_the_server_gives_up, _until_we_give_up])
async def test_a_statement_that_is_slow_costs_no_connection(
    database_url: str, wait: Callable[[Pool], Awaitable[None]]
):
    pool = await open_pool(
        database_url, "test", PoolLimits(size=4, statement_seconds=0.5, release_seconds=10)
    )
    before = await _rest_together(pool, 4)
    with pytest.raises(Transient):
        await wait(pool)
    assert set(await _rest_together(pool, 4)) == set(before)
    await pool.close()


async def test_a_session_that_its_server_ended_casts_no_doubt_on_the_others(database_url: str):
    pool = await open_pool(database_url, "test", PoolLimits(size=4))
    killer = await connect(database_url, "killer")
    before = await _rest_together(pool, 4)
    with pytest.raises(DatabaseAway):
        await _use_while_it_is_ended(pool, killer)
    assert len(set(await _rest_together(pool, 4)) & set(before)) == 3
    await killer.close()
    await pool.close()


def _options(connection: Any) -> dict[str, int]:
    line = connection._transport.get_extra_info("socket")
    return {
        name: line.getsockopt(level, getattr(socket, name))
        for level, name in (
            (socket.SOL_SOCKET, "SO_KEEPALIVE"),
            (socket.IPPROTO_TCP, "TCP_KEEPIDLE"),
            (socket.IPPROTO_TCP, "TCP_KEEPINTVL"),
            (socket.IPPROTO_TCP, "TCP_KEEPCNT"),
        )
    }


@pytest.mark.skipif(sys.platform != "linux", reason="the system has other options")
async def test_the_kernel_probes_connections_that_rest_at_both_ends(database_url: str):
    probed = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    pool = await open_pool(database_url, "test")
    async with pool.connection() as pooled:
        assert _options(pooled) == probed
        assert await pooled.fetchval("SHOW tcp_keepalives_idle") == "10"
    apart = await connect(database_url, "test")
    assert _options(apart) == probed
    await apart.close()
    await pool.close()


async def _use_while_it_is_ended(pool: Pool, killer: Connection) -> None:
    async with pool.connection() as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        await killer.execute("SELECT pg_terminate_backend($1)", pid)
        await connection.fetchval("SELECT 1")


async def test_task_that_is_cancelled_ends_though_its_statement_does_not(database_url: str):
    async with Proxy.before(database_url) as proxy:
        pool = await open_pool(proxy.url_through(database_url), "test", PoolLimits(size=1))

        asking = asyncio.Event()

        async def ask_and_go_on() -> None:
            with suppress(Transient):
                async with pool.connection() as connection:
                    proxy.hang()
                    asking.set()
                    await connection.fetchval("SELECT 1")
            await asyncio.Event().wait()

        task = asyncio.create_task(ask_and_go_on())
        await asking.wait()
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled()
        await pool.close(within_seconds=0.1)


async def test_ended_sessions_heal_at_the_next_call(database_url: str):
    pool = await open_pool(database_url, "test")
    killer = await connect(database_url, "killer")
    with pytest.raises(DatabaseAway):
        await _use_while_it_is_ended(pool, killer)
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await killer.close()
    await pool.close()


async def test_transaction_commits_at_its_end_and_not_at_all_after_an_error(database_url: str):
    pool = await open_pool(database_url, "test")
    insert = "INSERT INTO run_tombstone (run_id) VALUES ($1)"
    kept = uuid4()
    async with pool.transaction() as connection:
        await connection.execute(insert, kept)
    with pytest.raises(asyncpg.UniqueViolationError):
        async with pool.transaction() as connection:
            await connection.execute(
                "INSERT INTO run_tombstone (run_id) SELECT unnest($1::uuid[])", [uuid4(), kept]
            )
    async with pool.connection() as connection:
        assert [row["run_id"] for row in await connection.fetch("SELECT run_id FROM run_tombstone")] == [kept]
    await pool.close()


async def test_fault_of_ours_stays_itself(database_url: str):
    pool = await open_pool(database_url, "test")
    with pytest.raises(asyncpg.PostgresSyntaxError):
        async with pool.connection() as connection:
            await connection.execute("SELECT FROM FROM")
    with pytest.raises(asyncpg.DataError):
        async with pool.connection() as connection:
            await connection.execute(LOCK_RUN, "no uuid")
    await pool.close()


async def test_a_database_that_does_not_exist_says_what_to_check(database_url: str):
    with pytest.raises(DatabaseRefuses, match="Check DATABASE_URL"):
        await connect(f"{database_url}_nowhere", "test")


async def test_a_user_that_is_refused_says_what_to_check(database_url: str):
    nobody = urlsplit(database_url)._replace(
        netloc=f"nobody@{urlsplit(database_url).hostname}:{urlsplit(database_url).port}"
    )
    with pytest.raises(DatabaseRefuses, match="Check DATABASE_URL"):
        await connect(nobody.geturl(), "test")


@pytest.mark.parametrize("state", ["40001", "53400", "55006", "57P05", "58030", "XX000", "25006"])
async def test_what_the_server_says_of_its_own_state_is_the_database_being_away(pool, state: str):
    with pytest.raises(DatabaseAway):
        async with pool.connection() as connection:
            await connection.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$")


async def test_what_the_server_says_of_a_statement_is_a_fault_of_ours(pool):
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with pool.connection() as connection:
            await connection.execute("SELECT 1 / 0")


@pytest.mark.parametrize("statement", ["SELECT FROM nowhere", "SELECT nothing FROM run"])
async def test_a_table_or_column_that_is_not_there_may_come_back(pool, statement: str):
    with pytest.raises(SchemaAway, match="juinie-api migrate"):
        async with pool.connection() as connection:
            await connection.execute(statement)


async def test_grants_that_are_not_there_may_come_back(pool):
    with pytest.raises(DatabaseRefuses):
        async with pool.connection() as connection:
            await connection.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '42501'; END $$")


async def test_sessions_bear_a_name_and_their_limits(database_url: str):
    connection = await connect(database_url, "juinie-test", PoolLimits(statement_seconds=3, lock_seconds=1))
    assert await connection.fetchval("SHOW application_name") == "juinie-test"
    assert await connection.fetchval("SHOW statement_timeout") == "3s"
    assert await connection.fetchval("SHOW lock_timeout") == "1s"
    assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "5s"
    await connection.close()


async def test_closing_does_not_wait_for_a_connection_that_is_lent(database_url: str):
    pool = await open_pool(database_url, "test")
    lent = asyncio.Event()

    async def hold() -> None:
        async with pool.connection() as connection:
            await connection.execute("SET statement_timeout = 0")
            lent.set()
            await connection.execute("SELECT pg_sleep(60)")

    holding = asyncio.create_task(hold())
    await lent.wait()
    async with asyncio.timeout(30):
        await pool.close(within_seconds=0.1)
    with pytest.raises(Transient):
        await holding
    watcher = await connect(database_url, "watcher")
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test' AND datname = current_database()"
    await watcher.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test' AND datname = current_database()"
    )
    await eventually(lambda: _none(watcher, count), 30, "no session left")
    await watcher.close()


async def _none(connection, count: str) -> bool:
    return await connection.fetchval(count) == 0


def test_sqlalchemys_spelling_becomes_libpqs():
    assert plain_url("postgresql+asyncpg://u:p@h/d?x=a+b://c") == "postgresql://u:p@h/d?x=a+b://c"
    assert plain_url("postgres://h/d") == "postgres://h/d"
