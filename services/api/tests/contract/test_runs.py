"""A run's life, as a client sees it."""

import asyncio
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from juinie_api.app import serve
from juinie_testkit.running import running


async def test_a_new_run_is_pending_and_its_first_event_tells_of_it(api: Any):
    response = await api.client.post(
        "/v1/runs",
        json={"agent": "researcher", "thread_id": "t-1", "input": {"q": 1}, "metadata": {"k": "v"}},
    )
    run = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/runs/{run['run_id']}"
    assert UUID(run["run_id"]).version == 7
    assert run == {
        "run_id": run["run_id"], "agent": "researcher", "thread_id": "t-1", "status": "pending", "input": {"q": 1},
        "output": None, "error": None, "metadata": {"k": "v"}, "last_seq": 1, "attempt": 0, "cancel_requested": False,
        "created_at": run["created_at"], "started_at": None, "finished_at": None, "deadline_at": run["deadline_at"],
        "stream_url": f"http://127.0.0.1:8001/v1/runs/{run['run_id']}/stream",
    }  # fmt: skip
    [event] = await api.events(run["run_id"])
    assert (event["seq"], event["type"]) == (1, "run.created")
    assert event["data"] == {
        "agent": "researcher",
        "thread_id": "t-1",
        "input": {"q": 1},
        "metadata": {"k": "v"},
    }
    assert (await api.client.get(response.headers["location"])).json() == run


async def test_timeouts_are_stored_with_their_defaults(api: Any):
    await api.create()
    await api.create(timeout_seconds=60, idle_timeout_seconds=5)
    rows = await api.rows(
        "SELECT idle_timeout_seconds AS idle, deadline_at - created_at AS deadline FROM run ORDER BY created_at"
    )
    assert [(row["idle"], row["deadline"].total_seconds()) for row in rows] == [(3600, 86_400), (5, 60)]


async def test_the_first_append_starts_a_run(api: Any):
    run_id = (await api.create())["run_id"]
    answer = await api.append(run_id, "a", "b")
    assert answer.status_code == 201
    assert answer.json() == {"first_seq": 3, "last_seq": 4, "status": "running", "cancel_requested": False}
    assert [event["type"] for event in await api.events(run_id)] == ["run.created", "run.started", "a", "b"]
    assert (await api.events(run_id))[1]["data"] == {"attempt": 1, "worker_id": None}
    run = (await api.client.get(f"/v1/runs/{run_id}")).json()
    assert (run["status"], run["attempt"], run["last_seq"]) == ("running", 1, 4)
    assert run["started_at"] is not None


async def test_input_from_a_person_leaves_the_run_to_its_worker(api: Any):
    run_id = (await api.create())["run_id"]
    body = {"events": [{"type": "input"}], "start": False}
    answer = await api.client.post(f"/v1/runs/{run_id}/events", json=body)
    assert answer.json() == {"first_seq": 2, "last_seq": 2, "status": "pending", "cancel_requested": False}
    assert (await api.append(run_id)).json()["first_seq"] == 4


async def test_finish_commits_the_last_events_and_the_end_together(api: Any):
    run_id = (await api.create())["run_id"]
    answer = await api.finish(run_id, output={"answer": 42}, events=[{"type": "last"}])
    run = answer.json()
    assert (answer.status_code, run["status"], run["output"], run["last_seq"]) == (
        200,
        "success",
        {"answer": 42},
        4,
    )
    assert run["finished_at"] is not None
    events = await api.events(run_id)
    assert [event["type"] for event in events] == ["run.created", "run.started", "last", "run.finished"]
    assert events[-1]["data"] == {"status": "success", "output": {"answer": 42}, "error": None}
    rows = await api.rows("SELECT first_seq, last_seq FROM outbox ORDER BY id")
    assert [(row["first_seq"], row["last_seq"]) for row in rows] == [(1, 1), (2, 4)]


@pytest.mark.parametrize(
    ("body", "types"),
    [
        ({"status": "error", "start": False}, ["run.created", "run.finished"]),
        ({"status": "error"}, ["run.created", "run.started", "run.finished"]),
        ({"status": "success", "start": False}, ["run.created", "run.started", "run.finished"]),
    ],
)
async def test_a_pending_run_goes_straight_to_its_end_where_that_is_no_success(
    api: Any, body: Any, types: list[str]
):
    run_id = (await api.create())["run_id"]
    run = (await api.finish(run_id, **body)).json()
    assert (run["status"], run["attempt"]) == (body["status"], len(types) - 2)
    assert [event["type"] for event in await api.events(run_id)] == types


async def test_finishing_again_in_the_same_way_changes_nothing(api: Any):
    run_id = (await api.create())["run_id"]
    first = await api.finish(run_id, output=1)
    again = await api.finish(run_id, output=1)
    assert (again.status_code, again.json()) == (200, first.json())
    for other in (
        api.finish(run_id, output=2), api.finish(run_id, status="error"), api.append(run_id),
        api.finish(run_id, output=1, events=[{"type": "x"}]),
    ):  # fmt: skip
        refused = await other
        assert (refused.status_code, refused.json()["code"]) == (409, "run_finished")
    assert len(await api.events(run_id)) == 3


async def test_cancelling_a_pending_run_ends_it_at_once(api: Any):
    run_id = (await api.create())["run_id"]
    answer = await api.client.post(f"/v1/runs/{run_id}/cancel", json={"reason": "no need"})
    assert (answer.status_code, answer.json()["status"], answer.json()["cancel_requested"]) == (
        202,
        "cancelled",
        True,
    )
    events = (await api.events(run_id))[1:]
    assert [(event["type"], event["data"]) for event in events] == [
        ("run.cancel_requested", {"reason": "no need"}),
        ("run.finished", {"status": "cancelled", "output": None, "error": None}),
    ]
    assert (await api.client.post(f"/v1/runs/{run_id}/cancel")).status_code == 200


async def test_a_running_run_is_told_once_and_may_still_succeed(api: Any):
    run_id = (await api.create())["run_id"]
    await api.append(run_id)
    for _ in range(2):
        answer = await api.client.post(f"/v1/runs/{run_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "running")
    assert (await api.append(run_id)).json()["cancel_requested"] is True
    assert (await api.finish(run_id)).json()["status"] == "success"
    types = [event["type"] for event in await api.events(run_id)]
    assert types == ["run.created", "run.started", "x", "run.cancel_requested", "x", "run.finished"]
    assert (await api.client.post(f"/v1/runs/{run_id}/cancel")).status_code == 200


async def test_a_deleted_run_is_gone_and_its_id_taken(api: Any):
    run_id = (await api.create())["run_id"]
    refused = await api.client.delete(f"/v1/runs/{run_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "run_not_finished")
    await api.finish(run_id)
    deleted = await api.client.delete(f"/v1/runs/{run_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    for path in ("", "/events", "/wait"):
        assert (await api.client.get(f"/v1/runs/{run_id}{path}")).status_code == 404
    assert (await api.client.delete(f"/v1/runs/{run_id}")).status_code == 404
    assert (await api.append(run_id)).status_code == 404
    assert (await api.client.get("/v1/runs")).json()["items"] == []
    taken = await api.client.post("/v1/runs", json={"agent": "agent", "run_id": run_id})
    assert (taken.status_code, taken.json()["code"]) == (409, "run_id_taken")


async def test_a_deleted_runs_id_stays_taken_after_the_run_is_purged(api: Any):
    run_id = (await api.create())["run_id"]
    await api.finish(run_id)
    await api.client.delete(f"/v1/runs/{run_id}")
    await api.rows("DELETE FROM run WHERE run_id = $1", UUID(run_id))
    taken = await api.client.post("/v1/runs", json={"agent": "agent", "run_id": run_id})
    assert (taken.status_code, taken.json()["code"]) == (409, "run_id_taken")


async def test_the_client_may_choose_the_id(api: Any):
    run_id = str(uuid4())
    first = await api.client.post("/v1/runs", json={"agent": "a", "run_id": run_id})
    again = await api.client.post("/v1/runs", json={"agent": "a", "run_id": run_id})
    other = await api.client.post("/v1/runs", json={"agent": "b", "run_id": run_id})
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    assert (other.status_code, other.json()["code"]) == (409, "run_id_taken")


async def test_lists_are_paged_from_the_newest_without_payloads(api: Any):
    made = [(await api.create(agent=f"a{n % 2}", thread_id="t", input=n))["run_id"] for n in range(5)]
    seen, cursor = list[str](), ""
    while cursor is not None:
        page = (
            await api.client.get("/v1/runs", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        ).json()
        assert all("input" not in run and "output" not in run for run in page["items"])
        seen += [run["run_id"] for run in page["items"]]
        cursor = page["next_cursor"]
    assert seen == made[::-1]
    one = (
        await api.client.get("/v1/runs", params={"agent": "a1", "status": "pending", "thread_id": "t"})
    ).json()
    assert [run["run_id"] for run in one["items"]] == [made[3], made[1]]
    moment = (await api.client.get(f"/v1/runs/{made[2]}")).json()["created_at"]
    newer = (await api.client.get("/v1/runs", params={"created_after": moment})).json()["items"]
    older = (await api.client.get("/v1/runs", params={"created_before": moment})).json()["items"]
    assert [run["run_id"] for run in newer + older] == [made[4], made[3], made[1], made[0]]


async def test_a_list_of_huge_runs_ends_early_and_is_read_on_by_its_cursor(settings: Any, api: Any):
    made = [(await api.create(metadata={"m": "x" * 400}))["run_id"] for _ in range(9)]
    for number, run_id in enumerate(made):
        await api.finish(run_id, "error", error="y" * (5000 if number == 4 else 900))
    async with running(serve, settings.model_copy(update={"max_page_bytes": 3000})) as service:
        seen, sizes, cursor = list[str](), list[int](), None
        while cursor is not None or not seen:
            query = {"limit": 4, **({"cursor": cursor} if cursor else {})}
            page = (await api.client.get(f"{service.url}/v1/runs", params=query)).json()
            seen += [run["run_id"] for run in page["items"]]
            sizes.append(len(page["items"]))
            cursor = page["next_cursor"]
    assert seen == made[::-1]
    assert sizes == [3, 2, 3, 1], "one that is larger than a page ends it, and is never left out"


async def test_runs_of_one_moment_are_all_listed_once(api: Any):
    made = {(await api.create())["run_id"] for _ in range(5)}
    await api.rows("UPDATE run SET created_at = '2026-01-01'")
    first = (await api.client.get("/v1/runs", params={"limit": 3})).json()
    rest = (await api.client.get("/v1/runs", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert len(first["items"] + rest["items"]) == 5
    assert {run["run_id"] for run in first["items"] + rest["items"]} == made


@pytest.mark.parametrize("thread_id", ["t-1", "a/b", "ü % ?", "/active-run"])
async def test_the_active_run_of_a_thread_is_the_newest_that_goes_on(api: Any, thread_id: str):
    path = f"/v1/threads/{quote(thread_id, safe='')}/active-run"
    assert (await api.client.get(path)).status_code == 204
    older = await api.create(thread_id=thread_id)
    newer = await api.create(thread_id=thread_id)
    assert (await api.client.get(path)).json() == newer
    await api.finish(newer["run_id"])
    assert (await api.client.get(path)).json()["run_id"] == older["run_id"]
    await api.finish(older["run_id"])
    assert (await api.client.get(path)).status_code == 204


@pytest.mark.parametrize("thread_id", ["a\nb\n", "a\x00b"], ids=["line breaks", "NUL"])
async def test_a_thread_that_no_run_can_be_of_has_none(api: Any, thread_id: str):
    answer = await api.client.get(f"/v1/threads/{quote(thread_id, safe='')}/active-run")
    assert answer.status_code == 204


async def test_waiting_ends_with_the_run(api: Any):
    run_id = (await api.create())["run_id"]
    not_yet = await api.client.get(f"/v1/runs/{run_id}/wait", params={"timeout_seconds": 0})
    assert (not_yet.status_code, not_yet.headers["retry-after"]) == (202, "1")
    waiting = [
        asyncio.create_task(api.client.get(f"/v1/runs/{run_id}/wait", params={"timeout_seconds": 30}))
        for _ in range(20)
    ]
    await api.append(run_id)
    await api.finish(run_id)
    answers = await asyncio.gather(*waiting)
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "success")}


async def test_a_stream_token_is_for_this_run_of_this_tenant(api: Any, signing_keys: str):
    from juinie_shared.contracts.stream_tokens import StreamTokenSigner

    run_id = (await api.create())["run_id"]
    answer = await api.client.post(f"/v1/runs/{run_id}/stream-tokens", json={"ttl_seconds": 60})
    assert answer.status_code == 201
    name, _, secret = signing_keys.partition("=")
    token = StreamTokenSigner({name: secret}).verify(answer.json()["token"])
    assert (str(token.run_id), token.tenant_id, token.key_id) == (run_id, api.key.tenant_id, api.key.key_id)
    assert answer.json()["expires_at"] == token.expires_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for ttl in (0, 3601, "60", 1.5):
        refused = await api.client.post(f"/v1/runs/{run_id}/stream-tokens", json={"ttl_seconds": ttl})
        assert refused.status_code == 422
