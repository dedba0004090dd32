"""Each connection needs a session of its own. A pooler that shares sessions is told from one that does not, and from Postgres."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from juinie_shared.db.pool import PoolLimits, connect, open_pool
from juinie_shared.db.sessions import SessionCheck, can_hear, require_sessions
from juinie_shared.domain.errors import DatabaseAway, SessionLost, SessionsShared, Transient
from juinie_testkit.backing.docker import free_port
from juinie_testkit.pgbouncer import PgBouncer
from juinie_testkit.proxy import Proxy

ONE_LINE = (
    "DATABASE_URL leads through a pooler that shares sessions (pgbouncer's transaction mode): LISTEN and prepared "
    "statements need one each. Set pool_mode = session, or name Postgres itself."
)


async def test_postgres_itself_gives_each_connection_a_session(database_url: str):
    await require_sessions(database_url, "test")


async def test_pgbouncer_in_session_mode_does_so_too(
    database_url: str, make_pgbouncer: Callable[..., PgBouncer]
):
    url = make_pgbouncer("session").url_through(database_url)
    for _ in range(3):
        await require_sessions(url, "test")


@pytest.mark.parametrize(
    "settings",
    [
        {"default_pool_size": 1},
        {"default_pool_size": 2, "server_round_robin": 1},
        {"default_pool_size": 20},
        {"default_pool_size": 20, "min_pool_size": 5, "server_round_robin": 1},
    ],
    ids=["one connection", "two in turn", "as it comes", "many in turn"],
)
async def test_pgbouncer_in_transaction_mode_is_refused_with_one_line(
    database_url: str, make_pgbouncer: Callable[..., PgBouncer], settings: dict[str, Any]
):
    url = make_pgbouncer("transaction", **settings).url_through(database_url)
    for _ in range(2):
        with pytest.raises(SessionsShared) as refused:
            await require_sessions(url, "test")
        assert refused.value.message == ONE_LINE


async def test_pgbouncer_in_statement_mode_is_refused_likewise(
    database_url: str, make_pgbouncer: Callable[..., PgBouncer]
):
    url = make_pgbouncer("statement").url_through(database_url)
    with pytest.raises(SessionsShared):
        await require_sessions(url, "test")


async def test_transaction_mode_is_found_among_the_traffic_of_others(
    database_url: str, make_pgbouncer: Callable[..., PgBouncer]
):
    url = make_pgbouncer("transaction", default_pool_size=3).url_through(database_url)
    others = [await connect(url, "other") for _ in range(4)]

    async def traffic(connection: Any) -> None:
        while True:
            await connection.execute("SELECT 1")

    busy = [asyncio.create_task(traffic(other)) for other in others]
    with pytest.raises(SessionsShared):
        await require_sessions(url, "test")
    for task in busy:
        task.cancel()
    await asyncio.wait(busy)
    for other in others:
        other.terminate()


async def test_pool_that_has_no_second_connection_is_no_pooler_that_shares(
    database_url: str, make_pgbouncer: Callable[..., PgBouncer]
):
    pgbouncer = make_pgbouncer("session", default_pool_size=1)
    with pytest.raises(Transient):
        await require_sessions(pgbouncer.url_through(database_url), "test", PoolLimits(connect_seconds=0.3))


class _Slow:
    """A session that hears only when it asks for something: as on a server that is slow to send."""

    def __init__(self) -> None:
        self._callback: Callable[..., None] | None = None
        self.sent = False

    async def add_listener(self, _channel: str, callback: Callable[..., None]) -> None:
        self._callback = callback

    async def execute(self, _statement: str) -> str:
        self.sent = True
        return "NOTIFY"

    async def fetchval(self, _statement: str) -> int:
        if self._callback and self.sent:
            self._callback()
        return 1


async def test_slow_server_is_no_pooler():
    slow: Any = _Slow()
    assert await can_hear(slow, slow, within_seconds=0)


async def test_hung_or_absent_server_is_away_and_no_pooler(database_url: str):
    with pytest.raises(DatabaseAway):
        await require_sessions(f"postgresql://juinie@127.0.0.1:{free_port()}/juinie", "test")
    async with Proxy.before(database_url) as proxy:
        proxy.hang()
        with pytest.raises(DatabaseAway):
            await require_sessions(proxy.url_through(database_url), "test", PoolLimits(connect_seconds=0.1))


async def test_check_that_passed_is_not_made_again(database_url: str):
    async with Proxy.before(database_url) as proxy:
        check = SessionCheck(proxy.url_through(database_url), "test")
        await check()
        await check()
        assert proxy.accepted == 2


async def test_sessions_behind_pgbouncer_have_their_limits(
    database_url: str, make_pgbouncer: Callable[..., PgBouncer]
):
    url = make_pgbouncer("session").url_through(database_url)
    pool = await open_pool(url, "test", PoolLimits(statement_seconds=3, lock_seconds=1))
    async with pool.connection() as connection:
        names = (
            "application_name",
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
        )
        assert [await connection.fetchval(f"SHOW {name}") for name in names] == ["test", "3s", "1s", "5s"]
    await pool.close()


async def test_statement_that_a_session_lost_is_the_database_being_away(database_url: str):
    pool = await open_pool(database_url, "test", PoolLimits(size=1))
    async with pool.connection() as connection:
        await connection.fetchval("SELECT 41 + 1")
        await connection.execute("DEALLOCATE ALL")
    with pytest.raises(SessionLost):
        async with pool.connection() as connection:
            await connection.fetchval("SELECT 41 + 1")
    await pool.close()
