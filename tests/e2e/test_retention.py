"""What a tenant keeps no longer goes, and every reader is told: pages, streams, clients that come back."""

import asyncio
import os
import subprocess
import sys

import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import Stack
from juinie_testkit.waits import await_outbox_flush, await_stream_completion, eventually
from juinie_testkit.watcher import Watcher

pytestmark = pytest.mark.timeout(300)

LONG_AGO = "UPDATE run SET finished_at = finished_at - interval '40 days' WHERE run_id = $1"


async def keep(stack: Stack, tenant: str, **times: str) -> None:
    """`juinie-api tenants set`, as an operator does it."""
    options = [part for name, text in times.items() for part in (f"--{name.replace('_', '-')}", text)]
    command = [sys.executable, "-m", "juinie_api", "tenants", "set", tenant, *options]
    environment = {**os.environ, "DATABASE_URL": stack.database_url, "JUINIE_ENV": "test"}
    ended = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()


async def old_run(pool: Pool, api: ApiClient, **create: str) -> str:
    """A finished run of five events, of which Kafka has everything, and whose end is long past."""
    run_id = (await api.create(**create))["run_id"]
    await api.append(run_id, ("token", 1), ("token", 2))
    await api.finish(run_id, output={"answer": 42})
    await await_outbox_flush(pool, run_id)
    async with pool.connection() as connection:
        await connection.execute(LONG_AGO, run_id)
    return run_id


async def tenant_name(pool: Pool, key: SeededKey) -> str:
    async with pool.connection() as connection:
        return await connection.fetchval("SELECT name FROM tenant WHERE tenant_id = $1", key.tenant_id)


async def test_events_go_and_every_reader_is_told_while_the_run_stays(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    run_id = await old_run(stack_pool, api)
    await keep(stack, await tenant_name(stack_pool, key), events_after="30d", runs_after="90d")

    async def gone() -> bool:
        return (await api.http.get(f"/v1/runs/{run_id}/events")).status_code == 410

    await eventually(gone, 30, "410 for the events")
    answer = (await api.http.get(f"/v1/runs/{run_id}/events")).json()
    assert (answer["code"], answer["retained_from_seq"]) == ("events_gone", 6)
    assert (await api.get(run_id))["output"] == {"answer": 42}
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await await_stream_completion(watcher)
    assert [frame.event for frame in watcher.controls] == ["stream.gap", "stream.caught_up", "stream.end"]
    assert watcher.control("stream.gap") == {"retained_from_seq": 6}
    async with Watcher(stack.gateway.url, run_id, key=key.text, last_event_id=5) as watcher:
        assert watcher.status == 204


async def test_run_goes_and_its_id_stays_taken(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    other_tenant = await Seed(stack_pool).key(tenant="keeps-all")
    run_id = await old_run(stack_pool, api)
    async with ApiClient(stack.api.url, other_tenant.text) as other:
        kept = await old_run(stack_pool, other)
        await keep(stack, await tenant_name(stack_pool, key), runs_after="30d")

        async def gone() -> bool:
            async with stack_pool.connection() as connection:
                return await connection.fetchval(
                    "SELECT NOT EXISTS (SELECT FROM run WHERE run_id = $1)", run_id
                )

        await eventually(gone, 30, "the run is removed")
        assert (await api.http.get(f"/v1/runs/{run_id}")).status_code == 404
        async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
            assert watcher.status == 404
        again = await api.http.post("/v1/runs", json={"agent": "agent", "run_id": run_id})
        assert (again.status_code, again.json()["code"]) == (409, "run_id_taken")
        assert [event["seq"] for event in await other.events(kept)] == [1, 2, 3, 4, 5]
