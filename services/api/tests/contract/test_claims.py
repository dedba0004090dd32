"""Workers claim runs: each run goes to one of them, with a lease, whoever asks and however many ask at once."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from juinie_api.app import serve
from juinie_api.core.claim import Claim, Claimant, claim_run, give_back
from juinie_testkit.running import running


async def test_a_worker_gets_the_oldest_run_of_its_agents_and_starts_it(api: Any):
    await api.create(agent="other")
    oldest = await api.create(agent="a", input={"n": 1})
    await api.create(agent="b")
    claimed = await api.claim("b", "a", "b", worker_id="w é")
    assert claimed.status_code == 200
    run, lease = claimed.json()["run"], claimed.json()["lease"]
    assert run == {
        **oldest, "status": "running", "attempt": 1, "last_seq": 2, "started_at": run["started_at"],
    }  # fmt: skip
    assert (UUID(lease["token"]).version, lease["attempt"]) == (4, 1)
    [_, started] = await api.events(run["run_id"])
    assert (started["type"], started["data"]) == ("run.started", {"attempt": 1, "worker_id": "w é"})
    assert started["time"] == run["started_at"]
    assert (await api.claim("a", "b")).json()["run"]["agent"] == "b"
    nothing = await api.claim("a", "b")
    assert (nothing.status_code, nothing.content) == (204, b"")


async def test_a_claim_leaves_what_an_append_leaves(api: Any):
    run_id = await _claimed_run(api)
    rows = await api.rows(
        "SELECT o.*, r.shard AS run_shard FROM outbox o JOIN run r USING (run_id) ORDER BY id"
    )
    assert [(row["first_seq"], row["last_seq"]) for row in rows] == [(1, 1), (2, 2)]
    assert all(row["shard"] == row["run_shard"] and row["traceparent"] for row in rows)
    assert rows[1]["bytes"] == len('{"attempt":1,"worker_id":"w"}')
    [row] = await api.rows(
        """SELECT lease_expires_at - last_event_at AS lease, due_at = lease_expires_at AS due, lease_worker_id AS worker
           FROM run WHERE run_id = $1""",
        UUID(run_id),
    )
    assert (row["lease"].total_seconds(), row["due"], row["worker"]) == (30, True, "w")


async def test_a_run_that_went_back_starts_again_with_the_next_attempt(api: Any):
    first = (await api.claim_new()).json()
    await api.lose_lease(first["run"]["run_id"])
    again = (await api.claim("agent", worker_id="other")).json()
    assert again["run"]["run_id"] == first["run"]["run_id"]
    assert (again["run"]["attempt"], again["lease"]["attempt"]) == (2, 2)
    assert again["lease"]["token"] != first["lease"]["token"]
    assert again["run"]["started_at"] == first["run"]["started_at"], "when it was started first"
    assert (await api.events(again["run"]["run_id"]))[-1]["data"] == {"attempt": 2, "worker_id": "other"}


async def test_what_nobody_should_start_is_left_alone(api: Any):
    late = await api.create()
    await api.rows("UPDATE run SET deadline_at = clock_timestamp()")
    deleted = await api.create()
    await api.rows("UPDATE run SET deleted_at = clock_timestamp() WHERE run_id = $1", UUID(deleted["run_id"]))
    cancelled = await api.create()
    await api.client.post(f"/v1/runs/{cancelled['run_id']}/cancel")
    running_already = await api.create()
    await api.append(running_already["run_id"])
    assert (await api.claim("agent")).status_code == 204
    assert (await api.client.get(f"/v1/runs/{late['run_id']}")).json()["status"] == "pending"


async def test_a_run_that_is_given_back_is_due_at_once_and_nobody_elses_is(api: Any):
    first, second = await api.create(), await api.create()
    claims = [
        await claim_run(api.pool, Claim(api.key.tenant_id, ["agent"], Claimant(worker, 3600)))
        for worker in "ab"
    ]
    await give_back(api.pool, claims[0])
    await give_back(api.pool, replace(claims[1], lease=claims[0].lease))
    rows = await api.rows(
        """SELECT run_id, status, lease_token, lease_expires_at <= clock_timestamp() AND due_at <= clock_timestamp() AS due
           FROM run ORDER BY created_at"""
    )
    assert [(str(row["run_id"]), row["due"]) for row in rows] == [
        (first["run_id"], True),
        (second["run_id"], False),
    ]
    assert [(row["status"], row["lease_token"]) for row in rows] == [
        ("running", claim.lease.token) for claim in claims
    ]


async def test_a_locked_run_is_passed_over_and_found_later(api: Any):
    locked, free = (await api.create())["run_id"], (await api.create())["run_id"]
    async with api.pool.transaction() as tx:
        await tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await tx.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", UUID(locked))
        assert (await api.claim("agent")).json()["run"]["run_id"] == free
        waiting = asyncio.create_task(api.claim("agent", wait_seconds=30))
        await api.until_waiting(1)
    assert (await waiting).json()["run"]["run_id"] == locked


async def test_a_tenants_workers_never_get_anothers_run(api: Any):
    await api.create()
    async with api.client_of(await api.seed.key(tenant="b")) as foreign:
        body = {"agents": ["agent"], "worker_id": "w"}
        waiting = asyncio.create_task(foreign.post("/v1/claims", json={**body, "wait_seconds": 0.5}))
        assert (await foreign.post("/v1/claims", json=body)).status_code == 204
        await api.create()
        assert (await waiting).status_code == 204
        own = (await foreign.post("/v1/runs", json={"agent": "agent"})).json()["run_id"]
        assert (await foreign.post("/v1/claims", json=body)).json()["run"]["run_id"] == own
    assert len((await api.client.get("/v1/runs", params={"status": "pending"})).json()["items"]) == 2


async def test_forty_workers_at_two_apis_get_forty_runs_once_each(api: Any, settings: Any):
    made = {(await api.create())["run_id"] for _ in range(40)}
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(running(serve, settings))
        urls = [api.service.url, other.url]
        assert (await api.client.get(f"{other.url}/v1/runs")).status_code == 200
        claims = [
            api.client.post(f"{urls[n % 2]}/v1/claims", json={"agents": ["agent"], "worker_id": f"w{n}"})
            for n in range(40)
        ]
        answers = await asyncio.gather(*claims)
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["run"]["run_id"] for answer in answers) == sorted(made)
    assert len({answer.json()["lease"]["token"] for answer in answers}) == 40
    rows = await api.rows("SELECT count(*) AS starts FROM run_event WHERE type = 'run.started'")
    assert rows[0]["starts"] == 40


async def test_workers_take_turns_while_runs_are_appended_to(api: Any):
    """Claims, appends and cancels at once: each run is started once at most, and no writer is refused for a claim."""
    made = [(await api.create())["run_id"] for _ in range(20)]
    inputs = [
        api.client.post(f"/v1/runs/{run_id}/events", json={"events": [{"type": "x"}], "start": False})
        for run_id in made
    ]
    claims = [api.claim("agent", wait_seconds=20) for _ in made]
    answers = await asyncio.gather(*inputs, *claims)
    assert {answer.status_code for answer in answers[:20]} == {201}
    assert sorted(answer.json()["run"]["run_id"] for answer in answers[20:]) == sorted(made)
    for run_id in made:
        events = await api.events(run_id)
        assert [event["seq"] for event in events] == [1, 2, 3]
        assert sorted(event["type"] for event in events) == ["run.created", "run.started", "x"]


LEASE, WORKER = ("lease_seconds", (4, 3601, 30.5, "30", True)), ("worker_id", ("", "x" * 257, "a\n", 1, None))
BAD: list[tuple[str, Any]] = [
    *((name, value) for name, values in (LEASE, WORKER) for value in values),
    *(("agents", value) for value in ([], ["a"] * 101, "a", [""], [1], ["a\0"], None, {})),
    *(("wait_seconds", value) for value in (-1, 30.1, "1", True, None)),
    ("unknown", 1),
]


@pytest.mark.parametrize(("name", "value"), BAD)
async def test_a_claim_with_a_fault_is_told_which(api: Any, name: str, value: Any):
    await api.create(agent="a")
    refused = await api.client.post("/v1/claims", json={"agents": ["a"], "worker_id": "w", name: value})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid"), refused.text
    assert [fault["pointer"].split("/")[1] for fault in refused.json()["errors"]] == [name]
    assert (await api.claim("a")).status_code == 200, "and it took nothing"


async def test_all_faults_of_a_claim_are_told_at_once(api: Any):
    refused = await api.client.post("/v1/claims", json={"agents": [], "lease_seconds": 1})
    faults = [(fault["pointer"], fault["code"]) for fault in refused.json()["errors"]]
    assert sorted(faults) == [
        ("/agents", "bad_value"),
        ("/lease_seconds", "bad_value"),
        ("/worker_id", "missing"),
    ]
    for body, status in (
        (b"[]", 422),
        (b"{", 400),
        (b'{"agents":["a"],"worker_id":"w","wait_seconds":1e400}', 422),
    ):
        refused = await api.client.post(
            "/v1/claims", content=body, headers={"Content-Type": "application/json"}
        )
        assert refused.status_code == status, refused.text


async def test_many_agents_may_be_named_and_names_may_be_any_text(api: Any):
    names = [f"agent {n} '; DROP TABLE run; --" for n in range(99)]
    run = await api.create(agent='日本 \\ " {}')
    assert (await api.claim(*names, '日本 \\ " {}')).json()["run"]["run_id"] == run["run_id"]


async def _claimed_run(api: Any) -> str:
    return (await api.claim_new()).json()["run"]["run_id"]
