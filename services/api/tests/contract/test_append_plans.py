"""How Postgres finds what appends need: along two keys, by a plan that is made once, whatever was in the tables then."""

import json
from typing import Any

from juinie_api.store.events import APPEND_MANY
from juinie_shared.db.plans import ONE_PLAN
from juinie_shared.db.pool import Connection, Pool, PoolLimits, open_pool
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

FILL = """
    WITH filled AS (
        INSERT INTO run (run_id, tenant_id, shard, agent, status, last_seq, idle_timeout_seconds, deadline_at, fingerprint)
        SELECT gen_random_uuid(), $1, 0, 'agent', 'running', 1, 3600, clock_timestamp() + interval '1 day', ''
        FROM generate_series(1, 3000) RETURNING run_id
    )
    INSERT INTO append_key (run_id, key, route, fingerprint, first_seq, last_seq, status, cancel_requested)
    SELECT run_id, n, 'append', '', 1, 1, 'running', false FROM filled, generate_series(1, 4) AS n
"""
EXECUTE = f"EXECUTE appends({', '.join(['NULL'] * 15)})"
BY_KEYS = [("append_key", "append_key_pkey", True), ("run", "run_pkey", True), ("run", "run_pkey", True)]
SCANS = """
    SELECT seq_scan, (SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'run_pkey') AS by_key
    FROM pg_stat_user_tables WHERE relname = 'run'
"""


async def scans_of(connection: Connection) -> list[tuple[str, str | None, bool]]:
    """The tables that are read, along which index each, and whether no further than is asked for, by a plan that is made now."""
    await connection.execute(f"PREPARE appends AS {APPEND_MANY}")
    explained = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {EXECUTE}")
    await connection.execute("DEALLOCATE appends")
    return sorted(
        (node["Relation Name"], node.get("Index Name"), "Index Cond" in node)
        for node in nodes_of(json.loads(explained)[0]["Plan"])
        if "Scan" in node["Node Type"] and "Relation Name" in node
    )


def nodes_of(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for child in node.get("Plans", ()) for inner in nodes_of(child))]


async def test_the_plan_is_the_same_over_empty_tables_and_over_full_ones(pool: Pool, database_url: str):
    key = await Seed(pool).key()
    flights = await open_pool(database_url, "flights", PoolLimits(size=1), **ONE_PLAN)
    async with flights.connection() as flight, pool.connection() as connection:
        assert await scans_of(flight) == BY_KEYS, "nothing is there, and nothing is known"
        await connection.execute(FILL, key.tenant_id)
        assert await scans_of(flight) == BY_KEYS, "much is there that no ANALYZE has seen"
        await connection.execute("ANALYZE run, append_key")
        assert await scans_of(flight) == BY_KEYS
    await flights.close()


async def test_appends_read_runs_along_their_key_where_a_table_of_one_page_is_cheaper_to_read(api: Any):
    """What the session of an append has counted is seen a second after what it counted before, and ten after its last statement."""
    run_id = (await api.create())["run_id"]
    await api.rows("ANALYZE run")
    [before] = await api.rows(SCANS)

    async def counted() -> bool:
        assert (await api.append(run_id)).status_code == 201
        [now] = await api.rows(SCANS)
        return now["by_key"] > before["by_key"] + 5

    await eventually(counted, 30, "the reads of some appends to be counted")
    [after] = await api.rows(SCANS)
    assert after["seq_scan"] == before["seq_scan"]


async def test_appends_that_come_alone_are_planned_once(pool: Pool, database_url: str):
    key = await Seed(pool).key()
    run_id = await Seed(pool).run(key, status="running")
    flights = await open_pool(database_url, "flights", PoolLimits(size=1), **ONE_PLAN)
    appends = [[run_id], [key.tenant_id], None, [True], [1], [1], [None], None, None, None, [1]]
    async with flights.connection() as flight:
        for _ in range(20):
            assert len(await flight.fetch(APPEND_MANY, *appends, "x", "1", None, None)) == 1
        [plans] = await flight.fetch(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1", APPEND_MANY
        )
    assert (plans["generic_plans"], plans["custom_plans"]) == (20, 0)
    await flights.close()
