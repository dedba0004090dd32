"""What a service waits for: named line by line, told when it changes, and mended by waiting, except where it cannot be."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from juinie_shared.db.keys import ensure_dev_key
from juinie_shared.db.pool import Pool
from juinie_shared.db.standing import DatabaseCheck
from juinie_shared.domain.errors import DatabaseAway, DevKeyOutsideDev, JuinieError, SchemaBehind
from juinie_shared.runtime import readiness
from juinie_shared.runtime.readiness import Readiness
from juinie_testkit.waits import eventually

BEHIND = SchemaBehind(None, "0001")


class World:
    """Postgres and Kafka as the readiness sees them."""

    def __init__(self, database: JuinieError | None = None, kafka: bool = True) -> None:
        self.database, self.kafka = database, kafka
        self.told: list[list[str]] = []
        self.readiness = Readiness(self._check_database, self.told.append, self._look_at_kafka)

    async def _check_database(self) -> None:
        if self.database:
            raise self.database

    async def _look_at_kafka(self) -> list[str]:
        return [] if self.kafka else ["Kafka does not answer."]


@pytest.fixture
async def watches(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[list[asyncio.Task[None]]]:
    monkeypatch.setattr(readiness, "EVERY_SECONDS", 0)
    monkeypatch.setattr(readiness, "EVERY_SECONDS_UNTIL_READY", 0)
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(
    ("database", "kafka", "missing"),
    [
        (None, True, []),
        (None, False, ["Kafka does not answer."]),
        (DatabaseAway(), True, [DatabaseAway().message]),
        (BEHIND, False, [BEHIND.message, "Kafka does not answer."]),
    ],
)
async def test_each_thing_that_is_missing_is_named(
    watches: list[asyncio.Task[None]], database: JuinieError | None, kafka: bool, missing: list[str]
) -> None:
    world = World(database, kafka)
    assert await world.readiness.missing(), "not ready before it was looked at"
    watches.append(asyncio.create_task(world.readiness.watch()))
    await eventually(lambda: world.told, 30, "what is missing was told")
    assert await world.readiness.missing() == missing
    assert world.readiness.database_seen.is_set() == (database is None)


async def test_it_is_told_once_when_it_changes(watches: list[asyncio.Task[None]]) -> None:
    world = World(DatabaseAway())
    watches.append(asyncio.create_task(world.readiness.watch()))
    await eventually(lambda: world.told, 30, "that the database is away was told")
    for _ in range(10):
        await asyncio.sleep(0)
    world.database = None
    await eventually(lambda: len(world.told) > 1, 30, "that it is back was told")
    assert world.told == [[DatabaseAway().message], []]


async def test_a_service_that_drains_is_not_ready() -> None:
    world = World()
    world.readiness.drain()
    assert await world.readiness.missing() == ["This server is stopping."]


async def test_what_no_waiting_mends_ends_the_watch() -> None:
    with pytest.raises(DevKeyOutsideDev):
        await World(DevKeyOutsideDev()).readiness.watch()


async def _sessions_are_fine() -> None: ...


async def test_database_check_refuses_an_older_schema_and_the_development_key_outside_dev(pool: Pool) -> None:
    ran_before = DatabaseCheck(pool, _sessions_are_fine, dev=False)
    await ran_before()
    async with pool.connection() as connection:
        await ensure_dev_key(connection)
    await DatabaseCheck(pool, _sessions_are_fine, dev=True)()
    await ran_before()  # a key that somebody makes later ends nothing that runs
    with pytest.raises(DevKeyOutsideDev):
        await DatabaseCheck(pool, _sessions_are_fine, dev=False)()
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM alembic_version")
    with pytest.raises(SchemaBehind):
        await ran_before()
