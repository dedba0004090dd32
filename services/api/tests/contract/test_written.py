"""What is committed and cannot be read again for the answer: it is not taken for what wrote nothing."""

from typing import Any
from uuid import uuid4

import pytest

from juinie_api.core import append as append_module
from juinie_api.core import create as create_module
from juinie_api.core.append import Append, Ending, OneByOne
from juinie_api.core.create import NewRun, create
from juinie_api.core.finish import finish
from juinie_api.core.lanes import RunLanes
from juinie_api.core.tenant_pools import TenantPools
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import DatabaseAway
from juinie_shared.domain.ids import RunId
from juinie_shared.domain.runs import RunStatus
from juinie_testkit.seed import Seed


class SlowReads:
    """The statements that read a run, each one that Postgres gives up when its time is over."""

    def __init__(self, runs: Any) -> None:
        self._runs = runs

    def __getattr__(self, name: str) -> Any:
        if name in {"READ_RUN", "READ_HELD_RUN"}:
            return "WITH slow AS MATERIALIZED (SELECT pg_sleep(60)) SELECT $1::uuid, $2::uuid FROM slow"
        return getattr(self._runs, name)


async def test_an_end_that_cannot_be_read_again_is_not_one_that_was_not_written(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(append_module, "runs", SlowReads(append_module.runs))
    key = await Seed(pool).key()
    run_id, wakes = await Seed(pool).run(key, status="running"), list[int]()
    alone = OneByOne(TenantPools(pool, 6), RunLanes(60), lambda: wakes.append(1))
    with pytest.raises(DatabaseAway):
        await finish(pool, alone, Append(run_id, key.tenant_id, []), Ending(RunStatus.SUCCESS, None, None))
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT status FROM run WHERE run_id = $1", run_id) == "success"
    assert wakes == [1]


async def test_a_run_that_cannot_be_read_again_is_told_to_workers_and_is_not_one_that_was_not_made(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(create_module, "runs", SlowReads(create_module.runs))
    key, run_id, wakes = await Seed(pool).key(), RunId(uuid4()), list[int]()
    new = NewRun(run_id, key.tenant_id, "agent", None, None, "{}", 60, 60, None, b"fingerprint", None, None)
    with pytest.raises(DatabaseAway):
        await create(pool, lambda: wakes.append(1), new)
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM run WHERE run_id = $1", run_id) == 1
    assert wakes == [1]
