"""What a claim and a renewal cost the database: a few pages, however many runs wait, and no index entry for a renewal."""

import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID, uuid4

import pytest

from juinie_api.store import claims, events
from juinie_shared.db.plans import IN_ORDER
from juinie_shared.db.pool import Connection, Pool, open_pool
from juinie_shared.domain.ids import TenantId
from juinie_testkit.counts import RUNS_READ, RUNS_UPDATED
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

AGENTS, RUNS = 100, 20_000

# Of each agent 200 runs wait, and as many again have ended; the tables are as large as those of a busy day.
FILL = """
    INSERT INTO run (run_id, tenant_id, shard, agent, status, finished_at, created_at, last_seq, idle_timeout_seconds,
                     deadline_at, fingerprint)
    SELECT gen_random_uuid(), $1, 0, 'agent ' || n % 100, CASE WHEN n < $2 THEN 'pending' ELSE 'success' END,
           CASE WHEN n < $2 THEN NULL ELSE clock_timestamp() END, '2026-01-01'::timestamptz + make_interval(secs => n), 1, 3600,
           clock_timestamp() + interval '1 day', ''
    FROM generate_series(0, 2 * $2::int - 1) AS n
"""
OPEN = """
    INSERT INTO run (run_id, tenant_id, shard, agent, status, created_at, last_seq, idle_timeout_seconds, deadline_at, fingerprint)
    SELECT gen_random_uuid(), $1, 0, 'agent ' || n % 50, 'running', '2026-01-01'::timestamptz + make_interval(secs => n), 1, 3600,
           clock_timestamp() + interval '1 day', ''
    FROM generate_series(1, $2::int) AS n
"""
SCANS = "SELECT idx_scan::int FROM pg_stat_user_indexes WHERE indexrelname = $1"
PAGES_A_PROBE = 12
"""An index's pages from its root to a leaf, the row, and its check, for each of the two looks at an agent."""


@pytest.fixture
async def tenant_id(pool: Pool) -> TenantId:
    key = await Seed(pool).key()
    async with pool.connection() as connection:
        await connection.execute(FILL, key.tenant_id, RUNS)
        await connection.execute("VACUUM ANALYZE run")
    return key.tenant_id


@pytest.fixture
async def desk(database_url: str) -> AsyncGenerator[Pool]:
    """Sessions as the desk has them."""
    pool = await open_pool(database_url, "test", **IN_ORDER)
    yield pool
    await pool.close()


@pytest.fixture
async def rolled_back(desk: Pool) -> AsyncGenerator[Connection]:
    async with desk.connection() as connection:
        transaction: Any = connection.transaction()
        await transaction.start()
        yield connection
        await transaction.rollback()


async def plan_of(connection: Connection, statement: str, *values: object) -> dict[str, Any]:
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *values)
    return json.loads(explained)[0]["Plan"]


def pages_of(node: dict[str, Any]) -> int:
    return node["Shared Hit Blocks"] + node["Shared Read Blocks"]


def nodes_of(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for child in node.get("Plans", ()) for inner in nodes_of(child))]


async def claim(connection: Connection, tenant_id: TenantId, agents: list[str]) -> Any:
    return await connection.fetchrow(claims.CLAIM, tenant_id, agents, "w", '"w"', 30, None)


@pytest.mark.parametrize("agents", [1, 10, AGENTS])
async def test_a_claim_reads_a_few_pages_of_one_index_and_locks_one_row(
    tenant_id: TenantId, rolled_back: Connection, agents: int
):
    names = [f"agent {n}" for n in range(AGENTS - agents, AGENTS)]
    plan = await plan_of(rolled_back, claims.CLAIM, tenant_id, names, "w", '"w"', 30, None)
    scans = [
        node for node in nodes_of(plan) if node.get("Relation Name") == "run" and "Scan" in node["Node Type"]
    ]
    used = {node.get("Index Name") for node in scans}
    assert used <= {"run_pending_idx", "run_pkey"}, used
    [locks] = [node for node in nodes_of(plan) if node["Node Type"] == "LockRows"]
    assert (locks["Actual Loops"], locks["Actual Rows"]) == (1, 1), "the next agent is not even looked at"
    assert pages_of(plan) < PAGES_A_PROBE * agents + 60


async def test_a_claim_takes_the_oldest_of_all_its_agents(tenant_id: TenantId, rolled_back: Connection):
    taken = [
        (await claim(rolled_back, tenant_id, ["agent 7", "agent 3", "agent 5"]))["agent"] for _ in range(6)
    ]
    assert taken == ["agent 3", "agent 5", "agent 7"] * 2


async def test_agents_without_a_run_cost_a_look_and_no_more(tenant_id: TenantId, rolled_back: Connection):
    plan = await plan_of(rolled_back, claims.CLAIM, tenant_id, ["nobody"], "w", '"w"', 30, None)
    assert pages_of(plan) < 10
    foreign = await plan_of(rolled_back, claims.CLAIM, uuid4(), ["agent 1"], "w", '"w"', 30, None)
    assert pages_of(foreign) < 10


async def test_the_look_for_all_who_wait_is_a_probe_for_each_of_their_agents(
    tenant_id: TenantId, rolled_back: Connection
):
    names = [f"agent {n}" for n in range(50)] + [f"nobody {n}" for n in range(50)]
    plan = await plan_of(rolled_back, claims.FIND_PENDING, [tenant_id] * 100, names)
    scans = [node["Index Name"] for node in nodes_of(plan) if node.get("Relation Name") == "run"]
    assert scans == ["run_pending_idx"]
    assert pages_of(plan) < PAGES_A_PROBE * 100


@pytest.mark.parametrize("since", ["as it was counted", "all claimed since"])
async def test_the_look_reads_no_runs_that_are_running(desk: Pool, since: str):
    """The usual day: few agents, half of what is open is running, or all of it since anybody counted."""
    tenant_id = (await Seed(desk).key()).tenant_id
    async with desk.connection() as connection:
        await connection.execute(FILL, tenant_id, RUNS)
        await connection.execute("UPDATE run SET agent = 'agent ' || left(right(agent, 1), 1)::int % 4")
        await connection.execute(
            "UPDATE run SET status = 'running' WHERE status = 'pending' AND hashtext(run_id::text) % 2 = 0"
        )
        await connection.execute("VACUUM ANALYZE run")
        if since == "all claimed since":
            await connection.execute("UPDATE run SET status = 'running' WHERE status = 'pending'")
        names = [f"agent {n}" for n in range(4)] + [f"nobody {n}" for n in range(36)]
        plan = await plan_of(connection, claims.FIND_PENDING, [tenant_id] * 40, names)
    scans = [node["Index Name"] for node in nodes_of(plan) if node.get("Relation Name") == "run"]
    assert scans == ["run_pending_idx"]


async def let_begin(connection: Connection, others: TenantId, tenant_id: TenantId, waited: bool) -> None:
    """Others' runs were counted, as they waited or had ended; a tenant began behind that, and all its runs are running."""
    await connection.execute("ALTER TABLE run SET (autovacuum_enabled = off)")
    await connection.execute(FILL, others, RUNS)
    if not waited:
        await connection.execute("UPDATE run SET status = 'success', finished_at = clock_timestamp()")
    await connection.execute("ANALYZE run")
    await connection.execute(OPEN, tenant_id, 5_000)


@pytest.mark.parametrize("waited", [False, True], ids=["none waited then", "some waited then"])
@pytest.mark.parametrize("agents", [1, 50])
async def test_who_waits_reads_none_of_what_a_tenant_has_started_since_anybody_counted(
    desk: Pool, waited: bool, agents: int
):
    seed = Seed(desk)
    others, tenant_id = (await seed.key("others")).tenant_id, (await seed.key()).tenant_id
    names = [f"agent {n}" for n in range(agents)]
    async with desk.connection() as connection:
        await let_begin(connection, others, tenant_id, waited)
        async with connection.transaction():
            before = await connection.fetchval(RUNS_READ)
            await claim(connection, tenant_id, names)
            await connection.fetch(claims.FIND_PENDING, [tenant_id] * agents, names)
            assert await connection.fetchval(RUNS_READ) - before <= 2, (
                "the planner looks at both ends of an index"
            )


async def test_claims_are_asked_in_sessions_that_read_in_the_order_of_an_index(api: Any):
    async with api.pool.connection() as connection:
        await let_begin(connection, (await api.seed.key("others")).tenant_id, api.key.tenant_id, waited=False)
    assert (await api.claim("agent 1")).status_code == 204

    async def scans(index: str) -> int:
        return (await api.rows(SCANS, index))[0]["idx_scan"]

    async def counted() -> bool:
        return await scans("run_pending_idx") + await scans("run_open_idx") > 0

    await eventually(counted, 30, "Postgres tells what was scanned")
    assert await scans("run_open_idx") == 0


async def test_renewing_a_lease_touches_no_index(tenant_id: TenantId, rolled_back: Connection):
    taken = await claim(rolled_back, tenant_id, ["agent 1"])
    run_id, token = taken["run_id"], taken["lease_token"]
    before = await updates(rolled_back)
    for _ in range(3):
        await rolled_back.fetchrow(claims.HEARTBEAT, run_id, tenant_id, token, None)
        await rolled_back.fetchrow(claims.HEARTBEAT, run_id, tenant_id, token, 60)
        await append(rolled_back, run_id, tenant_id, token)
    after = await updates(rolled_back)
    assert (after[0] - before[0], after[1] - before[1]) == (9, 9), "updates, and those of them that are HOT"


async def append(connection: Connection, run_id: UUID, tenant_id: TenantId, token: UUID) -> None:
    """One event by the holder of the lease."""
    nothing = (None, None, None, False, 4, None, None, None, None, None)
    await connection.fetchrow(
        events.APPEND, run_id, tenant_id, token, True, ["x"], ["null"], [None], *nothing
    )


async def updates(connection: Connection) -> tuple[int, int]:
    row = await connection.fetchrow(RUNS_UPDATED)
    assert row
    return row["all"], row["hot"]
