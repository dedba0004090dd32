"""What is counted between a service and its Postgres."""

from collections.abc import Callable
from types import ModuleType

from juinie_shared.db.pool import open_pool


async def test_statements_and_round_trips_are_counted(
    bench_module: Callable[[str], ModuleType], database_url: str
):
    async with bench_module("statements").Statements(database_url) as statements:
        pool = await open_pool(statements.url, "counted")
        async with pool.connection() as connection:
            assert await connection.fetchval("SELECT $1::int + 1", 1) == 2
            before = statements.round_trips
            for number in range(5):
                assert await connection.fetchval("SELECT $1::int + 1", number) == number + 1
            await connection.execute("NOTIFY somebody")
        await pool.close()
        assert statements.round_trips - before == 6
        assert statements.times("::int + 1") == 6
        assert statements.times("NOTIFY") == 1
