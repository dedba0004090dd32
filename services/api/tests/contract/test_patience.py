"""A statement that the database is slow with is given up when its request's patience ends, whatever it is part of."""

import pytest

from juinie_api.core import patience
from juinie_api.core.tenant_pools import TenantPools
from juinie_shared.db.pool import PoolLimits, open_pool
from juinie_shared.domain.errors import DatabaseAway
from juinie_shared.domain.ids import TenantId, new_uuid7

ONE_MINUTE = "SELECT pg_sleep(60)"


@pytest.mark.timeout(30)
async def test_a_slow_statement_ends_with_the_patience_and_leaves_the_pool_well(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    pool = await open_pool(database_url, "test", PoolLimits(statement_seconds=120))
    monkeypatch.setattr(patience, "SECONDS", patience.ACQUIRE_SECONDS + 0.5)
    mine = TenantPools(pool, 2).of(TenantId(new_uuid7()))
    patience.begin()
    with pytest.raises(DatabaseAway):
        async with mine.connection() as connection:
            await connection.fetch(ONE_MINUTE)
    patience.begin()
    with pytest.raises(DatabaseAway):
        async with mine.transaction() as transaction:
            await transaction.fetch(ONE_MINUTE)
    for _ in range(4):
        patience.begin()
        async with mine.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    await pool.close()
