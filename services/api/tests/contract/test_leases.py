"""A lease fences its holder: renewed by what the holder does, and refused once it is another's."""

from typing import Any
from uuid import uuid4

import pytest

EXPIRES_IN = (
    "SELECT extract(epoch FROM lease_expires_at - clock_timestamp())::float AS seconds, due_at FROM run"
)


def held(lease: Any) -> dict[str, str]:
    return {"Juinie-Lease": lease["token"]}


async def beat(api: Any, run_id: str, headers: dict[str, str] | None, **body: Any) -> Any:
    more = {"json": body} if body else {}
    return await api.client.post(f"/v1/runs/{run_id}/heartbeat", headers=headers, **more)


@pytest.fixture
async def claimed(api: Any) -> Any:
    return (await api.claim_new(lease_seconds=60)).json()


async def test_a_heartbeat_renews_for_as_long_as_before_or_as_it_says(api: Any, claimed: Any):
    run_id, lease = claimed["run"]["run_id"], claimed["lease"]
    for body, about in (({}, 60), ({"lease_seconds": 3600}, 3600), ({}, 3600), ({"lease_seconds": 5}, 5)):
        beaten = await beat(api, run_id, held(lease), **body)
        assert beaten.status_code == 200, beaten.text
        assert beaten.json()["cancel_requested"] is False
        [row] = await api.rows("SELECT * FROM run")
        assert beaten.json()["expires_at"] == row["lease_expires_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        [row] = await api.rows(EXPIRES_IN)
        assert about - 5 < row["seconds"] <= about
    assert len(await api.events(run_id)) == 2, "a heartbeat is no event"


async def test_due_only_moves_closer(api: Any, claimed: Any):
    run_id, lease = claimed["run"]["run_id"], claimed["lease"]
    before = (await api.rows(EXPIRES_IN))[0]["due_at"]
    await beat(api, run_id, held(lease), lease_seconds=3600)
    await api.append(run_id, headers=held(lease))
    assert (await api.rows(EXPIRES_IN))[0]["due_at"] == before
    await beat(api, run_id, held(lease), lease_seconds=5)
    [row] = await api.rows("SELECT due_at = lease_expires_at AS due FROM run")
    assert row["due"]


async def test_a_lease_holds_until_it_is_taken_whatever_the_clock_says(api: Any, claimed: Any):
    run_id, lease = claimed["run"]["run_id"], claimed["lease"]
    await api.rows("UPDATE run SET lease_expires_at = '2026-01-01'")
    assert (await api.append(run_id, headers=held(lease))).status_code == 201
    [row] = await api.rows(EXPIRES_IN)
    assert row["seconds"] > 0, "and an append renews it"
    await api.rows("UPDATE run SET lease_expires_at = '2026-01-01'")
    assert (await beat(api, run_id, held(lease))).status_code == 200


async def test_appends_without_the_lease_are_welcome_and_renew_nothing(api: Any, claimed: Any):
    run_id = claimed["run"]["run_id"]
    assert (await api.append(run_id)).json()["status"] == "running"
    [row] = await api.rows("SELECT lease_expires_at FROM run")
    assert row["lease_expires_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ") == claimed["lease"]["expires_at"]


@pytest.mark.parametrize("taken_by", ["nobody", "another worker", "the end"])
async def test_a_lost_lease_is_refused_everywhere(api: Any, claimed: Any, taken_by: str):
    run_id, lease = claimed["run"]["run_id"], claimed["lease"]
    if taken_by == "the end":
        await api.finish(run_id)
    else:
        await api.lose_lease(run_id)
    if taken_by == "another worker":
        assert (await api.claim("agent", worker_id="other")).status_code == 200
    before = await api.events(run_id)
    code = "run_finished" if taken_by == "the end" else "lease_lost"
    for refused, expected in (
        (await beat(api, run_id, held(lease)), "lease_lost"),
        (await api.append(run_id, headers=held(lease)), code),
        (await api.finish(run_id, output=1, headers=held(lease)), code),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, expected)
    assert await api.events(run_id) == before, "nothing of it was written"
    lost = 3 if code == "lease_lost" else 1
    assert f"juinie_api_leases_lost_total {lost}.0" in (await api.client.get("/metrics")).text


async def test_what_was_answered_is_answered_again_after_the_lease_is_lost(api: Any, claimed: Any):
    run_id, lease = claimed["run"]["run_id"], claimed["lease"]
    headers = {**held(lease), "Idempotency-Key": "k"}
    first = await api.append(run_id, headers=headers)
    await api.lose_lease(run_id)
    again = await api.append(run_id, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert (await api.append(run_id, headers={**headers, "Idempotency-Key": "new"})).status_code == 409
    assert (await api.append(run_id, "other", headers=headers)).json()["code"] == "idempotency_key_reused"


async def test_a_run_that_went_back_is_started_by_no_append(api: Any, claimed: Any):
    run_id = claimed["run"]["run_id"]
    await api.lose_lease(run_id)
    assert (await api.append(run_id)).json()["status"] == "pending"
    assert (await api.claim("agent")).json()["lease"]["attempt"] == 2


async def test_the_holder_learns_of_a_cancel_and_may_answer_it(api: Any, claimed: Any):
    run_id, lease = claimed["run"]["run_id"], claimed["lease"]
    assert (await api.client.post(f"/v1/runs/{run_id}/cancel")).status_code == 202
    assert (await beat(api, run_id, held(lease))).json()["cancel_requested"] is True
    assert (await api.append(run_id, headers=held(lease))).json()["cancel_requested"] is True
    assert (await api.finish(run_id, "cancelled", headers=held(lease))).json()["status"] == "cancelled"
    [row] = await api.rows("SELECT lease_token, lease_expires_at, due_at FROM run")
    assert (row["lease_token"], row["lease_expires_at"], row["due_at"]) == (None, None, None)


async def test_no_run_shows_its_token_to_others(api: Any, claimed: Any):
    run_id, token = claimed["run"]["run_id"], claimed["lease"]["token"]
    for path in (
        "/v1/runs",
        f"/v1/runs/{run_id}",
        f"/v1/runs/{run_id}/events",
        f"/v1/runs/{run_id}/wait?timeout_seconds=0",
    ):
        assert token not in (await api.client.get(path)).text, path
    assert token not in (await api.client.post(f"/v1/runs/{run_id}/cancel")).text


async def test_a_heartbeat_needs_the_lease_and_its_run(api: Any, claimed: Any):
    run_id, lease = claimed["run"]["run_id"], claimed["lease"]
    missing = await beat(api, run_id, None)
    assert (missing.status_code, missing.json()["code"]) == (400, "lease_missing")
    for rubbish in ("", "x", str(uuid4()), lease["token"].replace("-", "")):
        refused = await beat(api, run_id, {"Juinie-Lease": rubbish})
        assert (refused.status_code, refused.json()["code"]) == (409, "lease_lost")
    for unknown in (str(uuid4()), "x"):
        assert (await beat(api, unknown, held(lease))).status_code == 404
    other = (await api.create())["run_id"]
    assert (await beat(api, other, held(lease))).json()["code"] == "lease_lost", "another run's lease"
    for body in ({"lease_seconds": 4}, {"lease_seconds": 3601}, {"x": 1}):
        assert (await beat(api, run_id, held(lease), **body)).status_code == 422
    empty = await api.client.post(f"/v1/runs/{run_id}/heartbeat", headers=held(lease), json={})
    assert empty.status_code == 200


async def test_a_heartbeat_of_another_tenant_finds_no_run(api: Any, claimed: Any):
    async with api.client_of(await api.seed.key(tenant="b")) as foreign:
        answer = await foreign.post(
            f"/v1/runs/{claimed['run']['run_id']}/heartbeat", headers=held(claimed["lease"])
        )
    assert answer.status_code == 404


async def test_success_of_a_run_that_went_back_to_pending_needs_a_claim(api: Any, claimed: Any):
    run_id = claimed["run"]["run_id"]
    await api.rows("UPDATE run SET status = 'pending', lease_token = NULL, lease_expires_at = NULL")
    refused = await api.client.post(f"/v1/runs/{run_id}/finish", json={"status": "success"})
    assert (refused.status_code, refused.json()["code"]) == (409, "run_not_claimed")
    assert len(await api.events(run_id)) == 2
    assert (await api.append(run_id)).status_code == 201, "an input is welcome"
    failed = await api.client.post(f"/v1/runs/{run_id}/finish", json={"status": "error", "error": "gave up"})
    assert (failed.status_code, failed.json()["status"]) == (200, "error")
