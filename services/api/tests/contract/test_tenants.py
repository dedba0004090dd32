"""A tenant sees only its own, a key does only what it may, and nobody without a key learns anything."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from juinie_api.edges.http import document
from juinie_testkit.seed import SeededKey

BODIES: dict[str, dict[str, Any]] = {
    "/v1/runs": {"agent": "a"},
    "/v1/claims": {"agents": ["agent"], "worker_id": "w"},
    "/v1/runs/{run_id}/events": {"events": [{"type": "x"}]},
    "/v1/runs/{run_id}/finish": {"status": "success"},
    "/v1/admin/runs/{run_id}/republish": {"from_seq": 1, "to_seq": 1},
    "/v1/admin/republish": {
        "created_after": "2020-01-01T00:00:00Z",
        "created_before": "2020-01-02T00:00:00Z",
    },
}
LEASE = "00000000-0000-4000-8000-000000000000"


def routes() -> list[tuple[str, str]]:
    """Every operation of the API, as its document has it."""
    return [(method.upper(), path) for path, methods in document()["paths"].items() for method in methods]


async def ask(
    client: httpx.AsyncClient, method: str, path: str, run_id: object, **more: Any
) -> httpx.Response:
    body = BODIES.get(path, {}) if method == "POST" else None
    filled = path.replace("{run_id}", str(run_id)).replace("{thread_id}", "t").replace("{id}", "1")
    if path.endswith("/heartbeat"):
        more["headers"] = {"Juinie-Lease": LEASE, **more.get("headers", {})}
    return await client.request(method, filled, json=body, **more)


def without(problem: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in problem.items() if name not in names}


async def test_another_tenants_run_is_no_run(api: Any):
    run_id = (await api.create(thread_id="t"))["run_id"]
    await api.append(run_id, headers={"Idempotency-Key": "k"})
    async with api.client_of(await api.seed.key(tenant="b")) as foreign:
        for method, path in routes():
            if "{run_id}" not in path:
                continue
            theirs = await ask(
                foreign, method, path, run_id, headers={"Idempotency-Key": "k"} if method == "POST" else {}
            )
            nobodys = await ask(foreign, method, path, uuid4())
            assert theirs.status_code == 404, (method, path, theirs.text)
            assert without(theirs.json(), "trace_id") == without(nobodys.json(), "trace_id")
        assert (await foreign.get("/v1/threads/t/active-run")).status_code == 204
        assert (await foreign.get("/v1/runs", params={"thread_id": "t"})).json() == {
            "items": [],
            "next_cursor": None,
        }
        taken = await foreign.post("/v1/runs", json={"agent": "agent", "thread_id": "t", "run_id": run_id})
        assert (taken.status_code, taken.json()["code"]) == (409, "run_id_taken")
    assert len(await api.events(run_id)) == 3, "and nothing was done to it"


async def test_without_a_key_every_route_gives_the_same_answer(api: Any):
    run_id = (await api.create())["run_id"]
    revoked = await api.seed.key(tenant="a")
    await api.rows("UPDATE api_key SET revoked_at = clock_timestamp() WHERE key_id = $1", revoked.key_id)
    credentials = [
        {}, {"Authorization": "Bearer jn_nobody"}, {"Authorization": "Bearer"}, {"Authorization": api.key.text},
        {"Authorization": f"Basic {api.key.text}"}, {"Authorization": f"Bearer {revoked.text}"}, {"X-Api-Key": "é"},
        {"X-Api-Key": "x" * 5000}, {"Authorization": f"Bearer {api.key.text} x"},
    ]  # fmt: skip
    seen = list[dict[str, Any]]()
    async with httpx.AsyncClient(base_url=api.service.url, trust_env=False) as client:
        for method, path in routes():
            for headers in credentials:
                sent = {name: value.encode() for name, value in headers.items()}
                answer = await ask(client, method, path, run_id, headers=sent)
                assert answer.status_code == 401, (method, path, headers)
                assert answer.headers["www-authenticate"] == "Bearer"
                seen.append(without(answer.json(), "trace_id"))
    assert all(body == seen[0] for body in seen)


async def test_a_key_does_only_what_its_scopes_say(api: Any):
    run_id = (await api.create())["run_id"]
    reader, writer = await api.seed.key("a", ("read",)), await api.seed.key("a", ("write",))
    async with api.client_of(reader) as reading, api.client_of(writer) as writing:
        for method, path in routes():
            needs_read = method == "GET" or path.endswith("stream-tokens")
            others = [writing if needs_read else reading]
            if path.startswith("/v1/admin"):
                others = [reading, writing]
            for other in others:
                refused = await ask(other, method, path, run_id)
                assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing"), (method, path)
                unknown = await ask(other, method, path, uuid4())
                assert unknown.status_code == 403, "403 comes before 404"
    assert len(await api.events(run_id)) == 1


async def test_what_is_wrong_with_a_request_comes_before_what_a_key_may(api: Any):
    reader: SeededKey = await api.seed.key("a", ("read",))
    async with api.client_of(reader) as client:
        malformed = await client.post(f"/v1/runs/{uuid4()}/events", json={"nope": 1})
        assert malformed.status_code == 422
        assert (await client.get(f"/v1/runs/{uuid4()}/events?nope=1")).status_code == 400
    async with httpx.AsyncClient(base_url=api.service.url, trust_env=False) as client:
        assert (await client.post("/v1/runs", content=b"nonsense")).status_code == 401


@pytest.mark.parametrize("twice", [{"X-Api-Key": "KEY", "Authorization": "Bearer KEY"}])
async def test_the_key_may_come_in_either_header_not_in_both(api: Any, twice: dict[str, str]):
    async with httpx.AsyncClient(base_url=api.service.url, trust_env=False) as client:
        for name, value in twice.items():
            headers = {name: value.replace("KEY", api.key.text)}
            assert (await client.get("/v1/runs", headers=headers)).status_code == 200
        both = {name: value.replace("KEY", api.key.text) for name, value in twice.items()}
        assert (await client.get("/v1/runs", headers=both)).status_code == 400
