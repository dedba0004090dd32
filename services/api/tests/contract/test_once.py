"""A request with an Idempotency-Key happens once, however often and however close together it is sent."""

import asyncio
from typing import Any

import pytest

from juinie_api.app import serve
from juinie_testkit.running import running

KEY = {"Idempotency-Key": "k 1"}


async def test_a_repeated_append_is_answered_as_the_first_time(api: Any):
    run_id = (await api.create())["run_id"]
    first = await api.append(run_id, "a", "b", headers=KEY)
    await api.append(run_id, "c")
    again = await api.append(run_id, "a", "b", headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await api.events(run_id)) == 5


async def test_it_is_answered_so_after_the_end_and_after_a_lost_lease(api: Any):
    run_id = (await api.create())["run_id"]
    first = await api.append(run_id, headers=KEY)
    lost = {**KEY, "Juinie-Lease": "00000000-0000-4000-8000-000000000000"}
    assert (await api.append(run_id, headers=lost)).json() == first.json()
    finished = await api.finish(run_id, output=1, headers={"Idempotency-Key": "end"})
    assert (await api.append(run_id, headers=KEY)).json() == first.json()
    again = await api.finish(run_id, output=1, headers={"Idempotency-Key": "end"})
    assert (again.status_code, again.json()) == (200, finished.json())
    assert again.headers["idempotency-replayed"] == "true"


async def test_a_key_is_good_for_one_request_of_one_route(api: Any):
    run_id = (await api.create())["run_id"]
    await api.append(run_id, headers=KEY)
    for refused in (await api.append(run_id, "other", headers=KEY), await api.finish(run_id, headers=KEY)):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert len(await api.events(run_id)) == 3
    other = (await api.create())["run_id"]
    assert (await api.append(other, headers=KEY)).headers.get("idempotency-replayed") is None


async def test_white_space_makes_no_other_request(api: Any):
    run_id = (await api.create())["run_id"]
    headers = {**KEY, "Content-Type": "application/json"}
    path = f"/v1/runs/{run_id}/events"
    first = await api.client.post(path, content=b'{"events":[{"type":"x"}]}', headers=headers)
    again = await api.client.post(path, content=b'{ "events": [ {"type": "x"} ] }', headers=headers)
    assert again.json() == first.json()


async def test_twenty_twins_at_once_append_once(api: Any):
    run_id = (await api.create())["run_id"]
    answers = await asyncio.gather(*(api.append(run_id, "a", "b", headers=KEY) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.text for answer in answers} == {answers[0].text}
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert [event["seq"] for event in await api.events(run_id)] == [1, 2, 3, 4]
    run = (await api.client.get(f"/v1/runs/{run_id}")).json()
    assert run["last_seq"] == 4


async def test_twins_do_not_hold_up_or_disturb_other_writers(api: Any):
    run_id = (await api.create())["run_id"]
    twins = [api.append(run_id, "twin", headers=KEY) for _ in range(20)]
    others = [api.append(run_id, "other") for _ in range(20)]
    answers = await asyncio.gather(*(each for pair in zip(twins, others, strict=True) for each in pair))
    assert {answer.status_code for answer in answers} == {201}
    types = [event["type"] for event in await api.events(run_id)]
    assert (types.count("twin"), types.count("other"), len(types)) == (1, 20, 23)


async def test_twenty_twins_at_once_create_one_run(api: Any):
    answers = await asyncio.gather(
        *(api.client.post("/v1/runs", json={"agent": "a"}, headers=KEY) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.text for answer in answers} == {answers[0].text}
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert len((await api.client.get("/v1/runs")).json()["items"]) == 1
    [row] = await api.rows("SELECT count(*) AS rows FROM outbox")
    assert row["rows"] == 1


async def test_a_key_of_a_create_is_good_for_one_body(api: Any):
    await api.client.post("/v1/runs", json={"agent": "a"}, headers=KEY)
    refused = await api.client.post("/v1/runs", json={"agent": "b"}, headers=KEY)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_replayed_create_shows_the_run_as_it_is_now(api: Any):
    body = {"agent": "a", "run_id": "0193a000-0000-7000-8000-000000000001"}
    await api.client.post("/v1/runs", json=body, headers=KEY)
    await api.append(body["run_id"])
    again = await api.client.post("/v1/runs", json=body, headers=KEY)
    assert (again.status_code, again.json()["status"]) == (201, "running")
    taken = await api.client.post("/v1/runs", json=body, headers={"Idempotency-Key": "another"})
    assert (taken.status_code, taken.json()["code"]) == (409, "run_id_taken")


async def test_the_key_of_a_deleted_run_is_remembered_whoever_chose_its_id(api: Any):
    body = {"agent": "a", "run_id": "0193a000-0000-7000-8000-000000000002"}
    await api.client.post("/v1/runs", json=body, headers=KEY)
    await api.finish(body["run_id"])
    await api.client.delete(f"/v1/runs/{body['run_id']}")
    again = await api.client.post("/v1/runs", json=body, headers=KEY)
    assert (again.status_code, again.json()["code"]) == (404, "run_not_found")
    other = await api.client.post("/v1/runs", json={**body, "agent": "b"}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    taken = await api.client.post("/v1/runs", json=body, headers={"Idempotency-Key": "another"})
    assert (taken.status_code, taken.json()["code"]) == (409, "run_id_taken")


async def test_keys_of_two_tenants_never_meet(api: Any):
    other = await api.seed.key(tenant="b")
    first = await api.client.post("/v1/runs", json={"agent": "a"}, headers=KEY)
    async with api.client_of(other) as client:
        second = await client.post("/v1/runs", json={"agent": "a"}, headers=KEY)
    assert second.status_code == 201
    assert second.json()["run_id"] != first.json()["run_id"]


@pytest.mark.parametrize("key", ["", "é", "x" * 256, "a\tb"])
async def test_a_key_is_printable_ascii(api: Any, key: str):
    run_id = (await api.create())["run_id"]
    refused = await api.append(run_id, headers={"Idempotency-Key": key.encode()})
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_idempotency_key")


async def test_twins_at_two_apis_at_once_and_later_are_one_request(api: Any, settings: Any):
    run_id = (await api.create())["run_id"]
    async with running(serve, settings) as second, api.client_of_service(second) as other:
        body = {"events": [{"type": "a"}, {"type": "b"}]}
        path = f"/v1/runs/{run_id}/events"
        at_once = [
            client.post(path, json=body, headers=KEY) for client in (api.client, other) for _ in range(10)
        ]
        answers = await asyncio.gather(*at_once)
        later = await other.post(path, json=body, headers=KEY)
        differing = await other.post(path, json={"events": [{"type": "c"}]}, headers=KEY)

    assert {answer.status_code for answer in (*answers, later)} == {201}
    assert {answer.text for answer in (*answers, later)} == {later.text}
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert (differing.status_code, differing.json()["code"]) == (422, "idempotency_key_reused")
    assert [event["seq"] for event in await api.events(run_id)] == [1, 2, 3, 4]
