"""Republishing that waits for retention: what it answers is what is kept when it has its turn, and can be sent."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from juinie_publisher.store.kept_runs import LOCK_WITH_EVENTS, REMOVE_EVENTS
from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import RunId
from juinie_testkit.any_service import AnyService
from juinie_testkit.running import running
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

DAY = timedelta(days=1)
LONG_AGO = "UPDATE run SET finished_at = clock_timestamp() - interval '2 days' WHERE run_id = $1"
BLOCKED = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO outbox%'
"""
ROWS = "SELECT run_id, first_seq, last_seq FROM outbox ORDER BY id"
WITHOUT_EVENTS = """
    SELECT run_id, seq FROM outbox, generate_series(first_seq, last_seq) AS seq
    WHERE NOT EXISTS (SELECT FROM run_event AS e WHERE e.run_id = outbox.run_id AND e.seq = seq.seq)
"""
RUN = "/v1/admin/runs/{run_id}/republish"
WHOLE = {"from_seq": 1, "to_seq": 1_000}
RANGE = {"from_seq": 3, "to_seq": 7}
TIME = {"created_after": "2000-01-01T00:00:00Z", "created_before": "2100-01-01T00:00:00Z"}
ALL = 1_000
FOUR = 4


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row lock may be waited for as long as a request may take: a machine that has much to do holds it for a while."""
    monkeypatch.setattr("juinie_api.app.LOCK_SECONDS", 60.0)
    monkeypatch.setattr("juinie_api.app.STATEMENT_SECONDS", 60.0)


async def finished_run(seed: Seed, key: Any, tokens: int) -> RunId:
    run_id = await seed.run(key, status="running")
    await seed.append(run_id, *[("token", n) for n in range(tokens)])
    await seed.finish(run_id)
    return run_id


async def rows(pool: Pool, sql: str) -> list[tuple[Any, ...]]:
    async with pool.connection() as connection:
        return [tuple(row.values()) for row in await connection.fetch(sql)]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("path", "body", "taken", "old_seqs", "young_seqs"),
    [
        pytest.param(RUN, WHOLE, ALL, None, None, id="a run of which all goes"),
        pytest.param(RUN, WHOLE, FOUR, (5, 11), None, id="a run of which a part goes"),
        pytest.param(RUN, RANGE, ALL, None, None, id="a range of which all goes"),
        pytest.param(RUN, RANGE, FOUR, (5, 7), None, id="a range of which a part goes"),
        pytest.param("/v1/admin/republish", TIME, ALL, None, (1, 5), id="a time in which a run goes"),
        pytest.param("/v1/admin/republish", TIME, FOUR, (5, 11), (1, 5), id="a time in which a part goes"),
    ],
)
async def test_what_retention_takes_while_its_lock_is_waited_for_is_not_republished(
    services: dict[str, AnyService],
    database_url: str,
    pool: Pool,
    path: str,
    body: dict[str, Any],
    taken: int,
    old_seqs: tuple[int, int] | None,
    young_seqs: tuple[int, int] | None,
):
    seed = Seed(pool)
    key = await seed.key()
    old, young = await finished_run(seed, key, 8), await finished_run(seed, key, 2)
    async with pool.connection() as connection:
        await connection.execute(LONG_AGO, old)
        await connection.execute("DELETE FROM outbox")
    api = services["api"]
    headers = {"Authorization": f"Bearer {key.text}"}
    async with (
        running(api.serve, api.settings(database_url, "", "")) as service,
        httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False, timeout=60) as client,
    ):
        async with pool.transaction() as retention:
            locked = await retention.fetch(LOCK_WITH_EVENTS, key.tenant_id, DAY, ALL)
            assert [row["run_id"] for row in locked] == [old]
            asked = asyncio.create_task(client.post(path.format(run_id=old), json=body))
            await eventually(lambda: _waits_for_the_lock(pool), 10, "it waits for the run's row")
            await retention.fetch(REMOVE_EVENTS, [old], taken)
        answer = await asked
    sent = [(run, *seqs) for run, seqs in ((old, old_seqs), (young, young_seqs)) if seqs is not None]
    assert (answer.status_code, answer.json()) == (
        202, {"records": sum(last - first + 1 for _, first, last in sent)},
    )  # fmt: skip
    assert await rows(pool, ROWS) == sent
    assert await rows(pool, WITHOUT_EVENTS) == []


async def _waits_for_the_lock(pool: Pool) -> bool:
    return await rows(pool, BLOCKED) == [(1,)]
