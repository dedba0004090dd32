"""Migrations: what they make is what the models say, in both directions, whoever else is at work."""

import asyncio
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from juinie_shared.db.migrate import alembic_config, downgrade, migrate
from juinie_shared.db.pool import Connection, PoolLimits, connect
from juinie_shared.db.schema import check_schema, known_revisions
from juinie_shared.db.tables import metadata
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy, SchemaBehind
from juinie_testkit.backing.docker import free_port
from juinie_testkit.waits import eventually

WAITING = """
    SELECT count(*) FROM pg_locks
    WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
NO_LIMITS = PoolLimits(statement_seconds=60)
TABLES = "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"


async def ask(database_url: str, query: str) -> Any:
    connection = await connect(database_url, "test", NO_LIMITS)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def differences(connection: Any) -> list[Any]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return compare_metadata(context, metadata)


async def test_models_equal_migrations(database_url: str):
    engine = create_async_engine(
        database_url.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool
    )
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()
    assert found == []


def test_file_names_tell_the_revisions_in_alembics_order():
    scripts = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    assert known_revisions() == tuple(script.revision for script in scripts)


async def test_every_table_of_the_models_is_there_and_no_other(database_url: str):
    assert set(await ask(database_url, TABLES)) == {*metadata.tables, "alembic_version"}


async def test_down_to_nothing_and_up_again(database_url: str):
    await downgrade(database_url, "base")
    assert await ask(database_url, TABLES) == ["alembic_version"]
    await migrate(database_url)
    assert set(await ask(database_url, TABLES)) == {*metadata.tables, "alembic_version"}


async def test_migrating_again_changes_nothing(database_url: str):
    await migrate(database_url)
    assert await ask(database_url, "SELECT version_num FROM alembic_version") == known_revisions()[0]


async def test_several_migrators_at_once_leave_one_schema(empty_database_url: str):
    await asyncio.gather(*(migrate(empty_database_url) for _ in range(3)))
    assert await ask(empty_database_url, "SELECT version_num FROM alembic_version") == known_revisions()[0]


async def test_sqlalchemys_spelling_of_the_url_is_taken_too(empty_database_url: str):
    await migrate(empty_database_url.replace("postgresql://", "postgresql+asyncpg://"))
    assert await ask(empty_database_url, "SELECT count(*) FROM alembic_version") == 1


async def test_what_libpq_takes_in_the_url_is_taken_too(empty_database_url: str):
    address = empty_database_url.replace("postgresql://", "postgres://")
    await migrate(f"{address}{'&' if '?' in address else '?'}sslmode=prefer&application_name=migrator")
    assert await ask(empty_database_url, "SELECT count(*) FROM alembic_version") == 1


async def hold_table(database_url: str) -> Connection:
    holder = await connect(database_url, "holder", NO_LIMITS)
    await holder.execute("SET idle_in_transaction_session_timeout = 0")
    await holder.execute("BEGIN")
    await holder.execute("LOCK TABLE run_event IN ACCESS SHARE MODE")
    return holder


async def test_migrator_gives_up_cleanly_when_a_table_stays_locked(database_url: str):
    holder = await hold_table(database_url)
    with pytest.raises(DatabaseBusy, match=r"did not let go within 0\.2 s"):
        await downgrade(database_url, "base", wait_seconds=0.2)
    await holder.close()
    assert set(await ask(database_url, TABLES)) == {*metadata.tables, "alembic_version"}


async def test_migrator_waits_for_a_table_lock_and_then_goes_on(database_url: str):
    holder = await hold_table(database_url)
    migrating = asyncio.create_task(downgrade(database_url, "base", wait_seconds=30))
    await eventually(lambda: ask(database_url, WAITING), 20, "the migrator waits for the table")
    assert not migrating.done()
    await holder.close()
    await migrating
    assert await ask(database_url, TABLES) == ["alembic_version"]


async def test_migrator_says_that_postgres_is_away():
    with pytest.raises(DatabaseAway):
        await migrate(f"postgresql://juinie@127.0.0.1:{free_port()}/juinie", wait_seconds=5)


async def test_service_refuses_an_older_schema_and_takes_a_newer_one(empty_database_url: str):
    connection = await connect(empty_database_url, "test")
    with pytest.raises(SchemaBehind, match=r"is at nothing, this service needs .* Run: juinie-api migrate"):
        await check_schema(connection)
    await migrate(empty_database_url)
    await check_schema(connection)
    await connection.execute("UPDATE alembic_version SET version_num = 'of-tomorrow'")
    await check_schema(connection)
    await connection.execute("DELETE FROM alembic_version")
    with pytest.raises(SchemaBehind):
        await check_schema(connection)
    await connection.close()
