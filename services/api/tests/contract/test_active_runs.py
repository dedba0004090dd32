"""How many unfinished runs a key may have, besides its tenant's; and what counting them costs who has no such limit."""

import json
from typing import Any
from uuid import UUID, uuid4

from juinie_api.app import serve
from juinie_api.core.append import Append, write
from juinie_api.settings import Settings
from juinie_api.store import runs
from juinie_shared.contracts.names import DEV_API_KEY
from juinie_shared.db.keys import ensure_dev_key
from juinie_shared.db.pool import Pool
from juinie_shared.domain.events import NewEvent
from juinie_testkit.counts import RUNS_UPDATED
from juinie_testkit.running import running
from juinie_testkit.seed import Seed, SeededKey

COUNTED = "SELECT counted_key_id FROM run WHERE run_id = $1"
ENTRIES = "SELECT reltuples::int AS n FROM pg_class WHERE relname = 'run_open_of_key_idx'"
FILL = """
    INSERT INTO run (run_id, tenant_id, shard, agent, status, finished_at, last_seq, idle_timeout_seconds, deadline_at,
                     fingerprint, counted_key_id)
    SELECT gen_random_uuid(), $1, 0, 'a', CASE WHEN n % 4 = 0 THEN 'success' ELSE 'running' END,
           CASE WHEN n % 4 = 0 THEN clock_timestamp() END, 1, 3600, clock_timestamp() + interval '1 day', '',
           CASE WHEN n % 100 = 1 THEN $2::uuid END
    FROM generate_series(1, 20000) AS n
"""


def check_refused(answer: Any, *policies: str) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (429, "too_many_active_runs"), answer.text
    assert problem["violated-policies"] == list(policies)
    assert int(answer.headers["retry-after"]) >= 1


async def create(client: Any, **body: Any) -> Any:
    return await client.post("/v1/runs", json={"agent": "a", **body})


async def counted_key(api: Any, run_id: str) -> UUID | None:
    return (await api.rows(COUNTED, UUID(run_id)))[0]["counted_key_id"]


async def test_active_runs_of_a_key_are_bounded_besides_its_tenants(api: Any):
    other, stranger = await api.seed.key(), await api.seed.key("b")
    await api.seed.limit(api.key, active_runs=4)
    await api.seed.limit(api.key, of_key=True, active_runs=2, requests_per_minute=1000)
    async with api.client_of(other) as beside, api.client_of(stranger) as elsewhere:
        once = {"Idempotency-Key": "k"}
        first = await api.client.post("/v1/runs", json={"agent": "a"}, headers=once)
        assert (first.status_code, (await create(api.client)).status_code) == (201, 201)
        refused = await create(api.client)
        check_refused(refused, "key-active-runs")
        assert '"key-requests";r=' in refused.headers["ratelimit"]
        assert [(await create(beside)).status_code for _ in range(2)] == [201, 201]
        check_refused(await create(beside), "tenant-active-runs")
        check_refused(await create(api.client), "tenant-active-runs", "key-active-runs")
        assert (await create(elsewhere)).status_code == 201
        replayed = await api.client.post("/v1/runs", json={"agent": "a"}, headers=once)
        assert (replayed.status_code, replayed.json()["run_id"]) == (201, first.json()["run_id"])
        ended = await beside.post(f"/v1/runs/{first.json()['run_id']}/cancel")
        assert ended.json()["status"] == "cancelled"
        assert (await create(api.client, claim={"worker_id": "w", "lease_seconds": 30})).status_code == 201
        check_refused(await create(api.client), "tenant-active-runs", "key-active-runs")


async def test_runs_count_for_a_key_that_it_made_since_it_has_a_limit(settings: Settings, api: Any):
    before = [(await api.create())["run_id"] for _ in range(3)]
    await api.seed.limit(api.key, of_key=True, active_runs=1)
    async with running(serve, settings) as later, api.client_of_service(later) as client:
        counted = await create(client)
        assert counted.status_code == 201
        check_refused(await create(client), "key-active-runs")
    assert [await counted_key(api, run_id) for run_id in before] == [None] * 3
    assert await counted_key(api, counted.json()["run_id"]) == api.key.key_id


async def test_default_of_the_settings_holds_for_keys_without_a_quota(
    settings: Settings, pool: Pool, api: Any
):
    free = await api.seed.key()
    await api.seed.limit(free, of_key=True, active_runs=None)
    async with pool.connection() as connection:
        await ensure_dev_key(connection)
    limited = Settings.model_validate({**settings.model_dump(), "max_active_runs_per_key": 1, "env": "dev"})
    dev = SeededKey(DEV_API_KEY, api.key.tenant_id, api.key.key_id)
    async with (
        running(serve, limited) as service,
        api.client_of_service(service) as client,
        api.client_of_service(service, free) as unlimited,
        api.client_of_service(service, dev) as developer,
    ):
        assert (await create(client)).status_code == 201
        check_refused(await create(client), "key-active-runs")
        for other in (unlimited, developer):
            for _ in range(3):
                made = await create(other)
                assert made.status_code == 201
                assert await counted_key(api, made.json()["run_id"]) is None


async def test_count_reads_few_pages_of_an_index_that_has_counted_runs_alone(pool: Pool):
    key = await Seed(pool).key()
    async with pool.connection() as connection:
        await connection.execute(FILL, key.tenant_id, key.key_id)
        await connection.execute("VACUUM ANALYZE run")
        for holder, found in ((key.key_id, 20), (uuid4(), 0)):
            assert await connection.fetchval(runs.COUNT_ACTIVE_OF_KEY, holder, 20) == found
            explained = await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {runs.COUNT_ACTIVE_OF_KEY}", holder, 20
            )
            plan = json.loads(explained)[0]["Plan"]
            assert '"Index Name": "run_open_of_key_idx"' in explained
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 30
        assert await connection.fetchval(ENTRIES) == 200


async def test_appends_to_a_counted_run_touch_no_index(pool: Pool):
    key = await Seed(pool).key()
    run_id = await Seed(pool).run(key, status="running")
    async with pool.connection() as connection:
        await connection.execute("UPDATE run SET counted_key_id = $1", key.key_id)
    async with pool.transaction() as tx:
        [before] = await tx.fetch(RUNS_UPDATED)
        for _ in range(5):
            assert await write(tx, Append(run_id, key.tenant_id, [NewEvent("x", "1")], starts=False))
        [after] = await tx.fetch(RUNS_UPDATED)
    assert (after["all"] - before["all"], after["hot"] - before["hot"]) == (5, 5)
