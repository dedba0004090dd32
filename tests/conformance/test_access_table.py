"""Who may do what: every route that the services serve by every credential by whose run it is.

The routes come from the served OpenAPI document and the gateway; the rules are the protocol's and written by hand. A route
that no rule speaks of fails the first test, by its name.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.access import Operation, bare, operations_of, undocumented
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.stack import Stack

SCOPES = ("read", "write", "admin")
JSON = {"Content-Type": "application/json"}
EVENTS = {"events": [{"type": "x"}]}
CLAIM = {"agents": ["nobody"], "worker_id": "w", "lease_seconds": 5, "wait_seconds": 0}
SEQS = {"from_seq": 1, "to_seq": 1}
TIMES = {"created_after": "2020-01-01T00:00:00Z", "created_before": "2020-01-02T00:00:00Z"}
LEASE = {"Juinie-Lease": str(uuid4())}
ENDED, RUNNING = "ended", "running"


@dataclass(frozen=True)
class Rule:
    """What a request that is right in all else is answered, to the owner's key of the right scope, on `run`."""

    answer: int
    body: dict[str, Any] | None = None
    run: str = RUNNING
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    conflict: str | None = None
    """The state of a run on which the owner gets 409."""


RULES = {
    "POST /v1/runs": Rule(201, {"agent": "a"}),
    "GET /v1/runs": Rule(200),
    "GET /v1/runs/{run_id}": Rule(200),
    "DELETE /v1/runs/{run_id}": Rule(204, run=ENDED, conflict=RUNNING),
    "POST /v1/runs/{run_id}/events": Rule(201, EVENTS, conflict=ENDED),
    "GET /v1/runs/{run_id}/events": Rule(200),
    "POST /v1/runs/{run_id}/finish": Rule(200, {"status": "success", "output": 1}, conflict=ENDED),
    "POST /v1/runs/{run_id}/cancel": Rule(202, {}),
    "GET /v1/runs/{run_id}/wait": Rule(202, query="timeout_seconds=0"),
    "POST /v1/runs/{run_id}/stream-tokens": Rule(201, {}),
    "GET /v1/runs/{run_id}/stream": Rule(200),
    "GET /v1/threads/{thread_id}/active-run": Rule(200),
    "POST /v1/claims": Rule(204, CLAIM),
    "POST /v1/runs/{run_id}/heartbeat": Rule(409, {}, headers=LEASE, conflict=RUNNING),
    "GET /v1/admin/outbox": Rule(200),
    "POST /v1/admin/outbox/pause": Rule(202),
    "POST /v1/admin/outbox/resume": Rule(202),
    "GET /v1/admin/outbox/dead-letters": Rule(200),
    "POST /v1/admin/outbox/dead-letters/{id}/requeue": Rule(404),
    "POST /v1/admin/outbox/dead-letters/{id}/discard": Rule(404),
    "POST /v1/admin/runs/{run_id}/republish": Rule(202, SEQS),
    "POST /v1/admin/republish": Rule(202, TIMES),
}
LAST = ("POST /v1/admin/outbox/resume",)
"""Undoes what another operation does to the whole stack, so it comes behind it."""


def scope_of(operation: Operation) -> str:
    """`read` for GETs, streams and stream tokens; `admin` for what is administered; `write` for everything else."""
    if operation.path.startswith("/v1/admin/"):
        return "admin"
    return "read" if operation.method == "GET" or operation.path.endswith("/stream-tokens") else "write"


class Caller:
    """Sends operations to the service that serves them."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self._stack, self._http = stack, http
        self._room = asyncio.Semaphore(16)
        self._numbers = itertools.count()

    async def ask(
        self, operation: Operation, ids: dict[str, object], credential: dict[str, str], **changes: Any
    ) -> httpx.Response:
        """The operation by its rule, with `headers`, `content` or `query` changed. Of a stream that opens, the head alone."""
        rule = RULES[str(operation)]
        service = self._stack.gateway if operation.on_gateway else self._stack.api
        url = f"{service.url}{operation.filled({'id': uuid4(), **ids})}?{changes.pop('query', rule.query)}"
        headers = {**rule.headers, **credential, **changes.pop("headers", {})}
        sent = {"json": rule.body} if rule.body is not None else {}
        request = self._http.build_request(operation.method, url, headers=headers, **(changes or sent))
        async with self._room:
            answer = await self._http.send(request, stream=True)
            if answer.headers.get("content-type") != "text/event-stream":
                await answer.aread()
            await answer.aclose()
        return answer

    async def run(self, key: str, state: str = RUNNING) -> dict[str, object]:
        """A new run of a key's tenant; what stands in paths for it."""
        thread = f"thread-{next(self._numbers)}"
        api, headers = f"{self._stack.api.url}/v1/runs", bearer(key)
        made = await self._http.post(api, json={"agent": "a", "thread_id": thread}, headers=headers)
        run_id = made.json()["run_id"]
        path, body = ("events", EVENTS) if state == RUNNING else ("finish", {"status": "error"})
        (await self._http.post(f"{api}/{run_id}/{path}", json=body, headers=headers)).raise_for_status()
        return {"run_id": run_id, "thread_id": thread}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def nobodys() -> dict[str, object]:
    """Ids that nothing has."""
    return {"run_id": uuid4(), "thread_id": f"thread-{uuid4()}"}


@pytest.fixture
async def caller(stack: Stack) -> AsyncGenerator[Caller]:
    async with httpx.AsyncClient(verify=NO_TLS, timeout=30, trust_env=False) as http:
        yield Caller(stack, http)


@pytest.fixture
async def operations(stack: Stack) -> list[Operation]:
    """All that is served under /v1, by both public services."""
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as http:
        document = (await http.get(f"{stack.api.url}/openapi.json")).json()
    served = [*operations_of(document), Operation("GET", "/v1/runs/{run_id}/stream", on_gateway=True)]
    return sorted(served, key=lambda operation: str(operation) in LAST)


@pytest.fixture
async def owner(make_key: Callable[..., Awaitable[str]]) -> str:
    return await make_key(f"owner-{uuid4()}")


@pytest.fixture
async def one_scope(make_key: Callable[..., Awaitable[str]]) -> dict[str, str]:
    """Keys of one tenant, each with one scope."""
    tenant = f"scopes-{uuid4()}"
    return {scope: await make_key(tenant, (scope,)) for scope in SCOPES}


def test_every_route_has_its_rule_and_every_rule_its_route(operations: list[Operation]):
    assert sorted(map(str, operations)) == sorted(RULES)
    known = {"run_id", "thread_id", "id"}
    assert [str(operation) for operation in operations if set(operation.places) - known] == []


# ---- 401 -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def bad_credentials(
    caller: Caller, owner: str, make_key: Callable[..., Awaitable[str]], pool: Pool
) -> dict[str, dict[str, str]]:
    """Everything that is no credential, or is one no more; each with the headers that show it."""
    revoked, expired = await make_key("revoked"), await make_key("expired")
    async with pool.connection() as connection:
        for column, tenant in (("revoked_at", "revoked"), ("expires_at", "expired")):
            await connection.execute(
                f"UPDATE api_key SET {column} = clock_timestamp() - interval '1 second' "
                "FROM tenant WHERE tenant.tenant_id = api_key.tenant_id AND tenant.name = $1",
                tenant,
            )
    tokens = Operation("POST", "/v1/runs/{run_id}/stream-tokens")
    token = (await caller.ask(tokens, await caller.run(owner), bearer(owner))).json()["token"]
    return {
        "none": {},
        "empty": {"Authorization": ""},
        "no bearer": {"Authorization": owner},
        "another scheme": {"Authorization": f"Basic {owner}"},
        "a bearer of nothing": {"Authorization": "Bearer"},
        "two words": bearer(f"{owner} x"),
        "cut short": bearer(owner[:-1]),
        "too long": bearer(f"{owner}x"),
        "huge": bearer("jn_" + "x" * 8000),
        "in capitals": bearer(owner.upper()),
        "unknown": bearer("jn_" + "x" * 43),
        "unknown, the other header": {"X-Api-Key": "jn_" + "x" * 43},
        "expired": bearer(expired),
        "revoked": bearer(revoked),
        "a stream token as key": bearer(token),
        "a stream token in the other header": {"X-Api-Key": token},
    }


async def test_every_bad_credential_gets_the_same_401_everywhere(
    caller: Caller, operations: list[Operation], owner: str, bad_credentials: dict[str, dict[str, str]]
):
    own, unknown = await caller.run(owner), nobodys()
    cases = [
        (operation, ids, shown, {"query": query})
        for operation in operations
        for ids, shown in itertools.product((own, unknown), bad_credentials)
        for query in ("",)
    ]
    cases += [(operation, own, "none", {"query": f"token={owner}"}) for operation in operations]
    cases += [(operation, own, "unknown", {"headers": {"Accept": "image/png"}}) for operation in operations]
    cases += [(operation, own, "unknown", {"query": "nope=1"}) for operation in operations]
    cases += [
        (operation, own, "none", {"content": b"{", "headers": JSON})
        for operation in operations
        if operation.method == "POST"
    ]
    answers = await asyncio.gather(
        *(caller.ask(operation, ids, bad_credentials[shown], **changes) for operation, ids, shown, changes in cases)
    )  # fmt: skip
    for on_gateway in (False, True):
        seen = {
            str(bare(answer)): (str(case[0]), case[2])
            for case, answer in zip(cases, answers, strict=True)
            if case[0].on_gateway == on_gateway
        }
        assert len(seen) == 1, seen
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert len({bare(answer)[2] for answer in answers}) == 1, "both services say the same"


# ---- 403, and what comes before it -----------------------------------------------------------------------------------


async def test_a_key_without_the_scope_gets_403_whatever_run_it_names(
    caller: Caller, operations: list[Operation], one_scope: dict[str, str], owner: str
):
    own, foreign = await caller.run(one_scope["write"]), await caller.run(owner)
    for operation in operations:
        needed = scope_of(operation)
        keys = [key for scope, key in one_scope.items() if scope != needed]
        targets = (own, foreign, nobodys(), {"run_id": "no-uuid", "thread_id": "t"})
        answers = await asyncio.gather(
            *(caller.ask(operation, ids, bearer(key)) for key in keys for ids in targets)
        )
        assert {answer.status_code for answer in answers} == {403}, operation
        assert len({str(bare(answer)) for answer in answers}) == 1, operation
        problem = answers[0].json()
        assert problem["code"] == "scope_missing"
        assert problem["detail"] == f"The API key lacks the scope that this route needs: {needed}."


async def test_a_key_of_the_one_scope_gets_in(
    caller: Caller, operations: list[Operation], one_scope: dict[str, str]
):
    for operation in operations:
        rule = RULES[str(operation)]
        ids = await caller.run(one_scope["write"], rule.run)
        answer = await caller.ask(operation, ids, bearer(one_scope[scope_of(operation)]))
        assert answer.status_code == rule.answer, (str(operation), answer.text)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers


def _malformed(operation: Operation) -> dict[int, list[dict[str, Any]]]:
    """What is wrong with a request, by the status that it gets. A body is read where the route takes one."""
    accept = {"headers": {"Accept": "image/png"}}
    wrong: dict[int, list[dict[str, Any]]] = {400: [{"query": "nope=1"}], 406: [accept]}
    if RULES[str(operation)].body is not None:
        wrong[400] += [{"content": b"{", "headers": JSON}, {"content": b'"\xff"', "headers": JSON}]
        wrong[413] = [{"content": b" " * 1_048_577, "headers": JSON}]
        wrong[415] = [
            {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
            {"content": b"{}", "headers": {**JSON, "Content-Encoding": "br"}},
        ]
        wrong[422] = [{"content": b'{"nope":1}', "headers": JSON}, {"content": b"[]", "headers": JSON}]
    elif operation.method != "POST":
        wrong.setdefault(400 if operation.on_gateway else 422, []).append(
            {"content": b'{"force":true}', "headers": JSON}
        )
    return wrong


async def test_what_is_wrong_with_a_request_comes_before_scope_run_and_state(
    caller: Caller, operations: list[Operation], one_scope: dict[str, str]
):
    ended = await caller.run(one_scope["write"], ENDED)
    for operation in operations:
        keys = [one_scope[scope] for scope in SCOPES]
        for status, wrong in _malformed(operation).items():
            answers = await asyncio.gather(
                *(
                    caller.ask(operation, ids, bearer(key), **dict(change))
                    for change, key, ids in itertools.product(wrong, keys, (ended, nobodys()))
                )
            )
            found = [answer.status_code for answer in answers]
            assert set(found) == {status}, (str(operation), status, found)


# ---- 404 -----------------------------------------------------------------------------------------------------------------


async def test_what_another_tenant_owns_is_answered_as_what_nobody_owns(
    caller: Caller, operations: list[Operation], owner: str, make_key: Callable[..., Awaitable[str]]
):
    stranger = bearer(await make_key(f"stranger-{uuid4()}"))
    foreign = [await caller.run(owner, state) for state in (RUNNING, ENDED)]
    deleted = await caller.run(owner, ENDED)
    await caller.ask(Operation("DELETE", "/v1/runs/{run_id}"), deleted, bearer(owner))
    for operation in operations:
        if not {"run_id", "thread_id"} & set(operation.places):
            continue
        answers = [await caller.ask(operation, ids, stranger) for ids in (*foreign, deleted, nobodys())]
        if "run_id" in operation.places:
            answers.append(await caller.ask(operation, {"run_id": "no-uuid"}, stranger))
        expected = 404 if "run_id" in operation.places else 204
        assert {answer.status_code for answer in answers} == {expected}, str(operation)
        assert len({str(bare(answer)) for answer in answers}) == 1, str(operation)
    for ids, status in zip(foreign, ("running", "error"), strict=True):
        kept = await caller.ask(Operation("GET", "/v1/runs/{run_id}"), ids, bearer(owner))
        assert (kept.json()["status"], kept.json()["cancel_requested"]) == (status, False)


async def test_lists_and_ids_of_others_show_nothing_of_them(
    caller: Caller, owner: str, make_key: Callable[..., Awaitable[str]]
):
    stranger = bearer(await make_key(f"stranger-{uuid4()}"))
    foreign = await caller.run(owner)
    runs = Operation("GET", "/v1/runs")
    for query in ("", f"thread_id={foreign['thread_id']}", "agent=a", "status=running"):
        listed = await caller.ask(runs, {}, stranger, query=query)
        assert listed.json() == {"items": [], "next_cursor": None}
    owned = await caller.ask(runs, {}, bearer(owner))
    assert [run["run_id"] for run in owned.json()["items"]] == [foreign["run_id"]]
    taken = await caller.ask(
        Operation("POST", "/v1/runs"), {}, stranger, json={"agent": "a", "run_id": foreign["run_id"]}
    )
    assert (taken.status_code, taken.json()["code"]) == (409, "run_id_taken")
    assert str(foreign["thread_id"]) not in taken.text


PARK = """
    INSERT INTO dead_letter (tenant_id, run_id, first_seq, last_seq, shard, reason)
    SELECT tenant_id, run_id, 1, 1, shard, 'message_too_large' FROM run WHERE run_id = $1 RETURNING id
"""


async def test_dead_letter_is_its_tenants_alone(
    caller: Caller, owner: str, make_key: Callable[..., Awaitable[str]], pool: Pool
):
    stranger, listed = await make_key(f"stranger-{uuid4()}"), "/v1/admin/outbox/dead-letters"
    run_id = (await caller.run(owner))["run_id"]
    for verb in ("requeue", "discard"):
        operation = Operation("POST", f"{listed}/{{id}}/{verb}")
        async with pool.connection() as connection:
            letter = {"id": await connection.fetchval(PARK, run_id)}
        theirs, nobodys_ = [
            await caller.ask(operation, ids, bearer(stranger)) for ids in (letter, {"id": 2**62})
        ]
        assert (theirs.status_code, bare(theirs)) == (404, bare(nobodys_))
        for key, seen in ((stranger, []), (owner, [letter["id"]])):
            items = (await caller.ask(Operation("GET", listed), {}, bearer(key))).json()["items"]
            assert [item["id"] for item in items] == seen
        assert (await caller.ask(operation, letter, bearer(owner))).status_code == 200


# ---- 409, 405 ------------------------------------------------------------------------------------------------------------


async def test_409_is_the_owners_alone(
    caller: Caller, operations: list[Operation], owner: str, one_scope: dict[str, str]
):
    for operation in operations:
        if (state := RULES[str(operation)].conflict) is None:
            continue
        ids = await caller.run(owner, state)
        assert (await caller.ask(operation, ids, bearer(owner))).status_code == 409, str(operation)
        stranger = bearer(one_scope[scope_of(operation)])
        assert (await caller.ask(operation, ids, stranger)).status_code == 404, str(operation)


async def test_no_path_has_a_method_that_is_not_documented(
    stack: Stack, operations: list[Operation], caller: Caller, owner: str
):
    ids = {**await caller.run(owner), "id": uuid4()}
    served = [operation for operation in operations if not operation.on_gateway]
    gateway = [operation for operation in operations if operation.on_gateway]
    async with httpx.AsyncClient(verify=NO_TLS, timeout=30, trust_env=False) as http:
        for operation in [*undocumented(served), *undocumented(gateway)]:
            service = stack.gateway if operation.on_gateway else stack.api
            url = f"{service.url}{operation.filled(ids)}"
            answers = [
                await http.request(operation.method, url, headers=shown)
                for shown in ({}, bearer("jn_nobody"), bearer(owner))
            ]
            assert {answer.status_code for answer in answers} == {405}, str(operation)
            assert len({str(bare(answer)) for answer in answers}) == 1, str(operation)
            assert operation.method not in answers[0].headers["allow"]
