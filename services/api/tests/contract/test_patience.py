"""A statement that the database is slow with is given up when its request's patience ends, whatever it is part of."""

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from juinie_api.app import serve
from juinie_api.core import patience
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.settings import Settings
from juinie_shared.db.pool import PoolLimits, open_pool
from juinie_shared.domain.errors import DatabaseAway
from juinie_shared.domain.ids import TenantId, new_uuid7
from juinie_testkit.proxy import Proxy
from juinie_testkit.running import running
from juinie_testkit.waits import eventually

ONE_MINUTE = "SELECT pg_sleep(60)"


@pytest.mark.timeout(50)
async def test_a_slow_statement_ends_with_the_patience_and_leaves_the_pool_well(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    pool = await open_pool(database_url, "test", PoolLimits(statement_seconds=120, acquire_seconds=30))
    monkeypatch.setattr(patience, "SECONDS", patience.ACQUIRE_SECONDS + 3)
    mine = TenantPools(pool, 2).of(TenantId(new_uuid7()))
    patience.begin()
    with pytest.raises(DatabaseAway):
        async with mine.connection() as connection:
            await connection.fetch(ONE_MINUTE)
    patience.begin()
    with pytest.raises(DatabaseAway):
        async with mine.transaction() as transaction:
            await transaction.fetch(ONE_MINUTE)
    monkeypatch.setattr(patience, "SECONDS", 30)
    for _ in range(4):
        patience.begin()
        async with mine.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    await pool.close()


async def test_sessions_that_take_long_to_be_made_are_waited_for(
    api: Any, settings: Settings, database_url: str
):
    """On a machine that has much to do each takes more than a second: nothing is refused for that."""
    run_id = (await api.create())["run_id"]
    events = {"events": [{"type": "x"}]}
    async with Proxy.before(database_url) as line:
        through = settings.model_copy(update={"database_url": SecretStr(line.url_through(database_url))})
        async with running(serve, through) as slow, api.client_of_service(slow) as client:
            assert (await client.get(f"/v1/runs/{run_id}")).is_success, "its key is known"
            for path, body in (("", {"agent": "a"}), (f"/{run_id}/events", events)):
                line.cut()
                line.hang()
                before = line.accepted
                asking = asyncio.create_task(client.post(f"/v1/runs{path}", json=body))
                await eventually(lambda before=before: line.accepted > before, 10, "a session is being made")
                await asyncio.sleep(1.2)
                await line.resume()
                answer = await asking
                assert answer.status_code == 201, answer.text


async def test_claims_wait_as_long_for_their_sessions(api: Any, settings: Settings, database_url: str):
    """Who makes them acts in the name of no request. Cut off too soon, none would ever be made."""
    await api.create(agent="a")
    async with Proxy.before(database_url) as line:
        through = settings.model_copy(update={"database_url": SecretStr(line.url_through(database_url))})
        async with running(serve, through) as slow, api.client_of_service(slow) as client:
            await eventually(lambda: _is_ready(client), 30, "it is ready")
            assert (
                await client.post("/v1/claims", json={"agents": ["b"], "worker_id": "w"})
            ).status_code == 204
            line.seconds_to_connect = 1.2
            line.cut()
            answer = await client.post("/v1/claims", json={"agents": ["a"], "worker_id": "w"})
            assert answer.status_code == 200, answer.text


async def test_a_server_that_is_ready_has_connections(api: Any, settings: Settings, database_url: str):
    """Whoever comes first waits for none to be made."""
    run_id = (await api.create())["run_id"]
    async with Proxy.before(database_url) as line:
        through = settings.model_copy(update={"database_url": SecretStr(line.url_through(database_url))})
        async with running(serve, through) as fresh, api.client_of_service(fresh) as client:
            await eventually(lambda: _is_ready(client), 30, "it is ready")
            made = line.accepted
            assert (await client.post("/v1/runs", json={"agent": "a"})).status_code == 201
            append = client.post(f"/v1/runs/{run_id}/events", json={"events": [{"type": "x"}]})
            assert (await append).status_code == 201
            assert (await client.post(f"/v1/runs/{run_id}/finish", json={"status": "success"})).is_success
            assert line.accepted == made


async def _is_ready(client: Any) -> bool:
    return (await client.get("/readyz")).status_code == 200
