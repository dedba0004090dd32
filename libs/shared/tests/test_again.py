"""What the server undid is done again, a few times; what it refused is not, and nothing is inside a transaction."""

import asyncpg
import pytest

from juinie_shared.db.again import REPEATS, again
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import RunLocked

RAISES = "DO $$ BEGIN IF nextval('tries') <= 2 THEN RAISE EXCEPTION 'no' USING ERRCODE = '{}'; END IF; END $$"


class Undone:
    """Is undone so often."""

    def __init__(self, times: int, error: type[Exception]) -> None:
        self.tries, self._times, self._error = 0, times, error

    async def __call__(self) -> str:
        self.tries += 1
        if self.tries <= self._times:
            raise self._error
        return "done"


@pytest.mark.parametrize("error", [asyncpg.DeadlockDetectedError, asyncpg.SerializationError])
async def test_undone_is_done_again_so_often_and_no_oftener(error: type[Exception]) -> None:
    assert await again(Undone(REPEATS, error)) == "done"
    too_often = Undone(REPEATS + 1, error)
    with pytest.raises(error):
        await again(too_often)
    assert too_often.tries == REPEATS + 1


async def test_refused_is_refused() -> None:
    refused = Undone(1, asyncpg.LockNotAvailableError)
    with pytest.raises(asyncpg.LockNotAvailableError):
        await again(refused)
    assert refused.tries == 1


async def test_statement_of_its_own_is_done_again_and_one_inside_a_transaction_is_not(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("CREATE SEQUENCE tries")
        await connection.execute(RAISES.format("40P01"))
        assert await connection.fetchval("SELECT last_value FROM tries") == 3
        await connection.execute("SELECT setval('tries', 1, false)")
    with pytest.raises(RunLocked):
        async with pool.transaction() as tx:
            await tx.execute(RAISES.format("40P01"))
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT last_value FROM tries") == 1
