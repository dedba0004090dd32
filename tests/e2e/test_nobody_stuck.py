"""A run that everybody left ends all the same, and everybody who watches, waits or consumes learns it.

Nothing waits for a lease or a deadline to pass: the moment is moved into the database's past.
"""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.kafka import read_topic
from juinie_testkit.seed import SeededKey
from juinie_testkit.stack import Stack
from juinie_testkit.waits import await_stream_completion
from juinie_testkit.watcher import Watcher

pytestmark = pytest.mark.timeout(300)

# A worker that claimed the run, and died.
DEAD_WORKER = """
    UPDATE run SET status = 'running', attempt = attempt + 1, lease_token = $2, lease_worker_id = 'dead',
        lease_seconds = 30, lease_expires_at = clock_timestamp(), due_at = clock_timestamp()
    WHERE run_id = $1
"""
LATE = "UPDATE run SET deadline_at = clock_timestamp(), due_at = clock_timestamp() WHERE run_id = $1"
IDLE = """
    UPDATE run SET last_event_at = clock_timestamp() - make_interval(secs => idle_timeout_seconds),
        due_at = clock_timestamp()
    WHERE run_id = $1
"""
GRACE_OVER = """
    UPDATE run SET cancel_requested_at = cancel_requested_at - interval '30 seconds', due_at = clock_timestamp()
    WHERE run_id = $1
"""


async def execute(pool: Pool, sql: str, *values: object) -> None:
    async with pool.connection() as connection:
        await connection.execute(sql, *values)


def types_of(watcher: Watcher) -> list[str]:
    return [frame.json["type"] for frame in watcher.events]


async def wait_for_end(api: ApiClient, run_id: str) -> dict[str, Any]:
    response = await api.http.get(f"/v1/runs/{run_id}/wait", params={"timeout_seconds": 60}, timeout=90)
    assert response.status_code == 200, response.text
    return response.json()


async def test_run_whose_workers_die_is_tried_again_and_then_ends_for_everybody(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    run_id = (await api.create())["run_id"]
    waiting = asyncio.create_task(wait_for_end(api, run_id))
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        for seq in (2, 3):
            await execute(stack_pool, DEAD_WORKER, run_id, uuid4())
            await watcher.until_seq(seq)
            assert (await api.get(run_id))["status"] == "pending"
        await execute(stack_pool, DEAD_WORKER, run_id, uuid4())
        await await_stream_completion(watcher)
    assert types_of(watcher) == ["run.created", "run.lease_expired", "run.lease_expired", "run.finished"]
    assert [frame.json["data"] for frame in watcher.events[1:]] == [
        {"attempt": 1},
        {"attempt": 2},
        {"status": "error", "output": None, "error": {"code": "lease_expired"}},
    ]
    assert watcher.seqs == [1, 2, 3, 4]
    assert watcher.control("stream.end") == {"last_seq": 4, "status": "error"}
    ended = await waiting
    assert (ended["status"], ended["error"], ended["attempt"]) == ("error", {"code": "lease_expired"}, 3)
    records = await read_topic(
        stack.kafka_bootstrap_servers,
        stack.kafka_topic,
        lambda records: sum(record.key == run_id.encode() for record in records) >= 4,
    )
    sent = [record.value for record in records if record.key == run_id.encode()]
    assert sent == [(frame.data or "").encode() for frame in watcher.events]


@pytest.mark.parametrize(
    ("moment", "started", "status", "error"),
    [
        (LATE, False, "timeout", {"code": "deadline"}),
        (LATE, True, "timeout", {"code": "deadline"}),
        (IDLE, True, "error", {"code": "idle"}),
    ],
    ids=["deadline while pending", "deadline while running", "idle"],
)
async def test_run_past_its_time_ends_for_its_watcher_and_for_who_waits(
    stack: Stack,
    stack_pool: Pool,
    api: ApiClient,
    key: SeededKey,
    moment: str,
    started: bool,
    status: str,
    error: dict[str, str],
):
    run_id = (await api.create())["run_id"]
    if started:
        await api.append(run_id, ("token", "Hel"))
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        waiting = asyncio.create_task(wait_for_end(api, run_id))
        await execute(stack_pool, moment, run_id)
        await await_stream_completion(watcher)
    assert types_of(watcher) == [
        "run.created",
        *(["run.started", "token"] if started else []),
        "run.finished",
    ]
    assert watcher.events[-1].json["data"] == {"status": status, "output": None, "error": error}
    ended = await waiting
    assert (ended["status"], ended["error"]) == (status, error)
    refused = await api.http.post(f"/v1/runs/{run_id}/events", json={"events": [{"type": "token"}]})
    assert (refused.status_code, refused.json()["code"]) == (409, "run_finished")


async def test_cancelled_run_ends_though_its_worker_is_silent(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    run_id = (await api.create())["run_id"]
    await api.append(run_id, ("token", "Hel"))
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        asked = await api.http.post(f"/v1/runs/{run_id}/cancel", json={"reason": "enough"})
        assert (asked.status_code, asked.json()["status"]) == (202, "running")
        await watcher.until_seq(4)
        await execute(stack_pool, GRACE_OVER, run_id)
        await await_stream_completion(watcher)
    assert types_of(watcher)[-2:] == ["run.cancel_requested", "run.finished"]
    assert watcher.control("stream.end") == {"last_seq": 5, "status": "cancelled"}
    assert (await wait_for_end(api, run_id))["status"] == "cancelled"


async def test_run_that_waits_for_its_grace_to_pass_may_still_be_finished_by_its_worker(api: ApiClient):
    run_id = (await api.create())["run_id"]
    await api.append(run_id, ("token", "Hel"))
    await api.http.post(f"/v1/runs/{run_id}/cancel", json={})
    assert (await api.finish(run_id, output={"answer": 42}))["status"] == "success"
