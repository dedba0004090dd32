"""A run that is created with a claim is its creator's from the start, and stays so however often it is asked for."""

import asyncio
from typing import Any

KEY = {"Idempotency-Key": "k"}
BODY = {"agent": "a", "claim": {"worker_id": "w", "lease_seconds": 60}}


async def post(api: Any, body: Any, headers: Any = None) -> Any:
    return await api.client.post("/v1/runs", json=body, headers=headers)


async def test_it_is_running_with_a_lease_and_no_worker_ever_sees_it_wait(api: Any):
    answer = await post(api, BODY)
    run = answer.json()
    lease = run.pop("lease")
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/runs/{run['run_id']}"
    assert (run["status"], run["attempt"], run["last_seq"]) == ("running", 1, 2)
    assert (run["started_at"], lease["attempt"]) == (run["created_at"], 1)
    assert (await api.client.get(answer.headers["location"])).json() == run
    events = await api.events(run["run_id"])
    assert [(event["seq"], event["type"]) for event in events] == [(1, "run.created"), (2, "run.started")]
    assert events[1]["data"] == {"attempt": 1, "worker_id": "w"}
    [row] = await api.rows("SELECT first_seq, last_seq, bytes FROM outbox")
    sizes = await api.rows("SELECT sum(octet_length(data)) AS bytes FROM run_event")
    assert (row["first_seq"], row["last_seq"], row["bytes"]) == (1, 2, sizes[0]["bytes"])
    [row] = await api.rows(
        "SELECT lease_expires_at - created_at AS lease, due_at = lease_expires_at AS due FROM run"
    )
    assert (row["lease"].total_seconds(), row["due"]) == (60, True)
    assert (await api.claim("a")).status_code == 204


async def test_its_lease_is_like_any_other(api: Any):
    run = (await post(api, BODY)).json()
    headers = {"Juinie-Lease": run["lease"]["token"]}
    assert (await api.append(run["run_id"], headers=headers)).json()["first_seq"] == 3
    assert (await api.client.post(f"/v1/runs/{run['run_id']}/heartbeat", headers=headers)).status_code == 200
    await api.lose_lease(run["run_id"])
    assert (await api.append(run["run_id"], headers=headers)).json()["code"] == "lease_lost"
    assert (await api.claim("a")).json()["lease"]["attempt"] == 2


async def test_a_deadline_before_the_leases_end_is_due_first(api: Any):
    await post(api, {**BODY, "timeout_seconds": 5})
    [row] = await api.rows("SELECT due_at = deadline_at AS due FROM run")
    assert row["due"]


async def test_who_lost_the_answer_gets_its_lease_again_by_its_key(api: Any):
    first = await post(api, BODY, KEY)
    again = await post(api, BODY, KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await api.events(first.json()["run_id"])) == 2


async def test_a_lease_that_is_lost_is_not_given_again(api: Any):
    first = (await post(api, BODY, KEY)).json()
    await api.lose_lease(first["run_id"])
    lost = await post(api, BODY, KEY)
    assert (lost.status_code, lost.json()["status"], lost.json()["lease"]) == (201, "pending", None)
    await api.claim("a", worker_id="other")
    others = await post(api, BODY, KEY)
    assert (others.json()["attempt"], others.json()["lease"]) == (2, None)
    await api.finish(first["run_id"])
    assert (await post(api, BODY, KEY)).json()["lease"] is None


async def test_without_a_key_an_equal_request_gets_the_run_and_not_the_lease(api: Any):
    body = {**BODY, "run_id": "0193a000-0000-7000-8000-000000000003"}
    first = (await post(api, body)).json()
    again = await post(api, body)
    assert (again.status_code, again.json()) == (200, {**first, "lease": None})


async def test_a_workers_lease_is_never_shown_to_who_created_the_run(api: Any):
    body = {"agent": "a", "run_id": "0193a000-0000-7000-8000-000000000004"}
    await post(api, body, KEY)
    token = (await api.claim("a")).json()["lease"]["token"]
    for again in (await post(api, body, KEY), await post(api, {**body, "claim": BODY["claim"]})):
        assert token not in again.text
    assert "lease" not in (await post(api, body, KEY)).json()


async def test_twenty_twins_at_once_hold_one_lease(api: Any):
    answers = await asyncio.gather(*(post(api, BODY, KEY) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.text for answer in answers} == {answers[0].text}
    assert len(await api.events(answers[0].json()["run_id"])) == 2


async def test_a_claim_with_a_fault_creates_nothing(api: Any):
    for claim in (
        {},
        {"worker_id": ""},
        {"worker_id": "w", "lease_seconds": 4},
        {"worker_id": "w", "x": 1},
        [],
        1,
        True,
    ):
        refused = await post(api, {"agent": "a", "claim": claim})
        assert refused.status_code == 422, refused.text
        assert all(fault["pointer"].startswith("/claim") for fault in refused.json()["errors"])
    assert (await post(api, {"agent": "a", "claim": None})).json()["status"] == "pending"
    assert len((await api.client.get("/v1/runs")).json()["items"]) == 1
