"""A migrator that is ended while it makes an index leaves something that the next one mends.

A transaction of somebody else's, older than the index, holds it up in the middle.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from juinie_shared.db.migrate import migrate
from juinie_shared.db.pool import Connection, PoolLimits, connect
from juinie_shared.db.schema import known_revisions
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy
from juinie_testkit.waits import eventually

REVISION = "SELECT version_num FROM alembic_version"
INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
INDEXES = """
    SELECT array_agg(indexrelid::regclass::text ORDER BY indexrelid::regclass::text) FROM pg_index
    WHERE indrelid = 'run'::regclass AND indisvalid AND indexrelid::regclass::text LIKE 'run%'
"""
MAKING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND datname = current_database()"
END = "SELECT pg_terminate_backend(pid) FROM ({}) AS making"
ALL_INDEXES = [
    "run_deleted_idx", "run_due_idx", "run_finished_idx", "run_kept_idx", "run_open_idx", "run_open_of_key_idx",
    "run_pending_idx", "run_pkey", "run_tenant_created_idx", "run_tenant_thread_idx",
]  # fmt: skip
AS_A_PROCESS = (
    "import asyncio, sys; from juinie_shared.db.migrate import migrate; asyncio.run(migrate(sys.argv[1]))"
)
NO_LIMITS = PoolLimits(statement_seconds=60)


@pytest.fixture
async def watching(empty_database_url: str) -> AsyncGenerator[Connection]:
    await migrate(empty_database_url, "0001")
    connection = await connect(empty_database_url, "watching", NO_LIMITS)
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def older_transaction(database_url: str) -> AsyncGenerator[None]:
    """One that has written and neither ends nor holds the table: an index that comes later waits for it."""
    holder = await connect(database_url, "older", NO_LIMITS)
    await holder.execute("SET idle_in_transaction_session_timeout = 0")
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tenant")
    yield
    await holder.close()


async def until_making(watching: Connection) -> Any:
    """Wait until the index is there and waits, not valid yet."""
    await eventually(lambda: watching.fetchval(INVALID), 30, "an index is being made")
    return await eventually(lambda: watching.fetchval(MAKING), 30, "its session is seen")


async def assert_whole(watching: Connection) -> None:
    assert await watching.fetchval(REVISION) == known_revisions()[0]
    assert await watching.fetchval(INVALID) == 0
    assert await watching.fetchval(INDEXES) == ALL_INDEXES


async def test_what_a_cut_connection_left_is_mended(empty_database_url: str, watching: Connection):
    async with older_transaction(empty_database_url):
        migrating = asyncio.create_task(migrate(empty_database_url))
        await until_making(watching)
        await watching.execute(END.format(MAKING))
        with pytest.raises(DatabaseAway):
            await migrating
        assert await watching.fetchval(REVISION) == "0001"
        assert await watching.fetchval(INVALID) == 1
    await migrate(empty_database_url)
    await assert_whole(watching)


async def test_what_a_killed_migrator_left_is_mended(empty_database_url: str, watching: Connection):
    async with older_transaction(empty_database_url):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", AS_A_PROCESS, empty_database_url)
        await until_making(watching)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        assert await watching.fetchval(REVISION) == "0001"
    await migrate(empty_database_url)
    await assert_whole(watching)


async def test_a_second_migrator_waits_while_an_index_is_made(empty_database_url: str, watching: Connection):
    async with older_transaction(empty_database_url):
        first = asyncio.create_task(migrate(empty_database_url))
        await until_making(watching)
        with pytest.raises(DatabaseBusy):
            await migrate(empty_database_url, wait_seconds=0.2)
        second = asyncio.create_task(migrate(empty_database_url))
        assert not first.done()
    await asyncio.gather(first, second)
    await assert_whole(watching)


async def test_writers_go_on_while_an_index_is_made(empty_database_url: str, watching: Connection):
    async with older_transaction(empty_database_url):
        migrating = asyncio.create_task(migrate(empty_database_url))
        await until_making(watching)
        await watching.execute("BEGIN; LOCK TABLE run IN ROW EXCLUSIVE MODE NOWAIT; COMMIT")
        assert not migrating.done()
    await migrating
