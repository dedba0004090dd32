"""Who is let in, and what is said to the others: permanent answers only are not 200."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from juinie_shared.contracts.stream_tokens import AUDIENCE, LEEWAY_SECONDS, StreamTokenSigner
from juinie_shared.db.keys import revoke_key
from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import new_run_id
from juinie_stream_gateway.app import serve
from juinie_stream_gateway.settings import Settings
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.raw_stream import connect_raw
from juinie_testkit.running import RunningService, running
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import await_stream_completion
from juinie_testkit.watcher import Watcher

ORIGIN = "https://app.example"
SECRET = "juinie-testkit-signing-key-0123456789"
LONGER_SECRET = "juinie-testkit-signing-key-0123456789-0123456789"


@pytest.fixture
def signer() -> StreamTokenSigner:
    return StreamTokenSigner({"test": SECRET})


async def ask(
    service: RunningService,
    run_id: UUID | str,
    key: str | None = None,
    *,
    method: str = "GET",
    query: str = "",
    headers: list[tuple[str, str]] | None = None,
) -> httpx.Response:
    sent = [("Origin", ORIGIN), *(headers or [])]
    if key is not None:
        sent.append(("Authorization", f"Bearer {key}"))
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        return await client.request(method, f"{service.url}/v1/runs/{run_id}/stream{query}", headers=sent)


def check_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["vary"] == "Origin"
    assert response.headers["x-content-type-options"] == "nosniff"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert re.fullmatch("(?!0{32})[0-9a-f]{32}", problem["trace_id"])
    return problem


@pytest.mark.parametrize(
    "headers", [("Content-Length", "2"), ("Transfer-Encoding", "chunked")], ids=["length", "chunks"]
)
async def test_a_body_that_nobody_would_read_is_refused(
    gateway: RunningService, seed: Seed, key: SeededKey, headers: tuple[str, str]
) -> None:
    run_id, (name, value) = await seed.run(key), headers
    body = b"2\r\n{}\r\n0\r\n\r\n" if value == "chunked" else b"{}"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"GET /v1/runs/{run_id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.text}\r\n{name}: {value}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (problem["code"], [fault["code"] for fault in problem["errors"]]) == (
        "bad_request",
        ["unexpected_body"],
    )


async def test_a_refusal_in_front_names_the_callers_trace(gateway: RunningService) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    traced = [("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01")]
    refused = [("Access-Control-Request-Method", "BREW")]
    for answer, code in (
        (await ask(gateway, "a/b", headers=traced), "not_found"),
        (await ask(gateway, "a", method="PUT", headers=traced), "method_not_allowed"),
        (await ask(gateway, "a", method="OPTIONS", headers=traced + refused), "cors_refused"),
    ):
        assert (answer.json()["code"], answer.json()["trace_id"]) == (code, trace_id)


async def test_very_many_unknown_parameters_are_one_fault(gateway: RunningService, key: SeededKey) -> None:
    answer = await ask(
        gateway, new_run_id(), key.text, query="?" + "&".join("a" * 14_000) + "&types=a&types=b"
    )
    problem = check_problem(answer, 400, "bad_request")
    assert [fault["code"] for fault in problem["errors"]] == ["unknown_parameter", "duplicate"]
    assert len(answer.content) < 1000


BAD_POSITIONS = ["abc", "-2", "1.5", "1e3", "9999999999999999999", "%201", "%D9%A3", "TAIL", "1%0A"]

UNREADABLE: list[tuple[str, list[tuple[str, str]]]] = [
    ("?wait=1", []),
    ("?after_seq=1&after_seq=2", []),
    ("?types=a&types=b", []),
    ("?types=", []),
    ("?types=a,,b", []),
    ("?types=a%0Ab", []),
    ("?types=" + "x" * 129, []),
    ("", [("Last-Event-ID", "1"), ("Last-Event-ID", "2")]),
    ("", [("Authorization", "Bearer other")]),
    ("", [("X-Api-Key", "other")]),
    ("?token=abc", []),
]


async def test_a_position_that_is_none_is_refused(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    for position in BAD_POSITIONS:
        check_problem(
            await ask(gateway, run_id, key.text, query=f"?after_seq={position}"), 400, "bad_position"
        )
    for position in ("tail", "abc", "-2", "1,2", "0x1"):
        response = await ask(gateway, run_id, key.text, headers=[("Last-Event-ID", position)])
        check_problem(response, 400, "bad_position")


async def test_what_cannot_be_read_or_is_said_twice_is_refused(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    for query, headers in UNREADABLE:
        response = await ask(gateway, run_id, key.text, query=query, headers=headers)
        assert check_problem(response, 400, "bad_request")["errors"]


async def test_only_who_accepts_event_streams_is_served(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key, status="success")
    for accept in (
        "application/json",
        "text/html, text/event-stream;q=0",
        "text/*;q=0.0",
        "*/*, text/event-stream;q=0",
    ):
        response = await ask(gateway, run_id, key.text, headers=[("Accept", accept)])
        check_problem(response, 406, "not_acceptable")
    for accept in ("*/*", "text/*", "text/event-stream", "text/html, */*;q=0.1", ""):
        async with Watcher(gateway.url, run_id, key=key.text, headers={"Accept": accept}) as watcher:
            await await_stream_completion(watcher)


async def test_other_methods_are_refused(gateway: RunningService, seed: Seed, key: SeededKey) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "HEAD"):
        response = await ask(gateway, await seed.run(key), key.text, method=method)
        assert response.status_code == 405
        assert response.headers["allow"] == "GET, OPTIONS"


async def test_who_shows_no_valid_key_is_refused(gateway: RunningService, seed: Seed, key: SeededKey) -> None:
    run_id = await seed.run(key)
    for shown in (
        [],
        [("Authorization", "Bearer")],
        [("Authorization", f"Basic {key.text}")],
        [("Authorization", "Bearer nobody")],
        [("Authorization", "Bearer jn_" + "x" * 4000)],
        [("Authorization", f"Bearer {key.text}x")],
        [("X-Api-Key", "nobody")],
    ):
        response = await ask(gateway, run_id, headers=shown)
        check_problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"


async def test_the_other_header_for_keys_is_taken_too(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key, status="success")
    async with Watcher(gateway.url, run_id, headers={"X-Api-Key": key.text}) as watcher:
        await await_stream_completion(watcher)


async def test_a_key_that_may_not_read_is_refused(gateway: RunningService, seed: Seed) -> None:
    key = await seed.key(scopes=("write",))
    check_problem(await ask(gateway, await seed.run(key), key.text), 403, "scope_missing")


async def test_runs_of_others_deleted_runs_and_unknown_runs_are_not_found_alike(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    foreign = await seed.run(await seed.key(tenant="b"))
    deleted = await seed.run(key)
    await seed.delete(deleted)
    answers = [
        await ask(gateway, run_id, key.text)
        for run_id in (foreign, deleted, new_run_id(), "no-uuid", "%00", "{" + str(foreign) + "}")
    ]
    bodies = [check_problem(answer, 404, "run_not_found") for answer in answers]
    assert len({json.dumps({**body, "trace_id": None}) for body in bodies}) == 1


async def test_other_paths_are_not_found(gateway: RunningService) -> None:
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, base_url=gateway.url) as client:
        for path in ("/", "/v1/runs", f"/v1/runs/{new_run_id()}/events", f"/v1/runs/{new_run_id()}/stream/"):
            response = await client.get(path, headers={"Origin": ORIGIN})
            check_problem(response, 404, "not_found")


# ---- tokens


async def test_a_token_opens_its_run_again_and_again(
    gateway: RunningService, seed: Seed, key: SeededKey, signer: StreamTokenSigner
) -> None:
    run_id = await seed.run(key, status="success")
    token, _ = signer.sign(run_id, key.tenant_id, key.key_id, 60)
    for _ in range(2):
        async with Watcher(gateway.url, run_id, token=token) as watcher:
            await await_stream_completion(watcher)


async def test_a_token_opens_no_other_run(
    gateway: RunningService, seed: Seed, key: SeededKey, signer: StreamTokenSigner
) -> None:
    token, _ = signer.sign(await seed.run(key), key.tenant_id, key.key_id, 60)
    check_problem(await ask(gateway, await seed.run(key), query=f"?token={token}"), 404, "run_not_found")


async def test_header_and_token_together_are_refused(
    gateway: RunningService, seed: Seed, key: SeededKey, signer: StreamTokenSigner
) -> None:
    run_id = await seed.run(key)
    token, _ = signer.sign(run_id, key.tenant_id, key.key_id, 60)
    check_problem(await ask(gateway, run_id, key.text, query=f"?token={token}"), 400, "bad_request")


async def test_a_token_that_was_not_signed_here_is_refused(
    gateway: RunningService, seed: Seed, key: SeededKey, signer: StreamTokenSigner
) -> None:
    run_id = await seed.run(key)
    good, _ = signer.sign(run_id, key.tenant_id, key.key_id, 60)
    claims = jwt.decode(good, options={"verify_signature": False})
    head, body, signature = good.split(".")
    expired = {**claims, "exp": int(time.time()) - LEEWAY_SECONDS - 1}
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"test"}').decode().rstrip("=")
    confused = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"test"}').decode().rstrip("=")
    bad = [
        key.text,
        "",
        "garbage",
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        jwt.encode(claims, "x" * 32, "HS256", {"kid": "test"}),
        jwt.encode(claims, SECRET, "HS256", {"kid": "../../etc/passwd"}),
        jwt.encode(claims, SECRET, "HS256", {"kid": "removed"}),
        jwt.encode({**claims, "exp": claims["iat"] + 10**9}, SECRET, "HS256", {"kid": "test"}),
        jwt.encode({**claims, "nbf": claims["iat"] + 3000}, SECRET, "HS256", {"kid": "test"}),
        jwt.encode({**claims, "iat": claims["iat"] + 3000}, SECRET, "HS256", {"kid": "test"}),
        jwt.encode(
            {name: claims[name] for name in claims if name != "exp"}, SECRET, "HS256", {"kid": "test"}
        ),
        f"{confused}.{body}.{signature}",
        jwt.encode(claims, SECRET, "HS256"),
        jwt.encode(claims, LONGER_SECRET, "HS384", {"kid": "test"}),
        jwt.encode(expired, SECRET, "HS256", {"kid": "test"}),
        jwt.encode({**claims, "aud": "other"}, SECRET, "HS256", {"kid": "test"}),
        jwt.encode({**claims, "run": "no-uuid"}, SECRET, "HS256", {"kid": "test"}),
        jwt.encode({**claims, "key": str(uuid4())}, SECRET, "HS256", {"kid": "test"}),
    ]
    assert claims["aud"] == AUDIENCE
    answers = [await ask(gateway, run_id, query=f"?token={token}") for token in bad]
    answers.append(await ask(gateway, run_id, "jn_nobody"))
    assert len({without_trace(answer) for answer in answers}) == 1
    check_problem(answers[0], 401, "unauthorized")


def without_trace(answer: httpx.Response) -> tuple[int, str, str]:
    """All that a client can see, but for the trace's id and the moment."""
    trace_id = answer.json()["trace_id"]
    return answer.status_code, answer.text.replace(trace_id, "trace"), str(sorted(answer.headers.items()))


async def test_signing_keys_are_rotated_with_an_overlap(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key, status="success")
    old, new = "o" * 40, "n" * 40
    tokens = {
        name: StreamTokenSigner({name: secret}).sign(run_id, key.tenant_id, key.key_id, 60)[0]
        for name, secret in (("old", old), ("new", new))
    }
    for held, let_in in (
        (f"old={old}", {"old"}),
        (f"new={new},old={old}", {"old", "new"}),
        (f"new={new}", {"new"}),
    ):
        settings = settings_with(stream_token_keys=held, kafka_bootstrap_servers="127.0.0.1:9")
        async with running(serve, settings) as service:
            for name, token in tokens.items():
                async with Watcher(service.url, run_id, token=token) as watcher:
                    assert watcher.status == (200 if name in let_in else 401), (held, name)


async def test_a_token_ends_with_the_key_that_made_it(
    gateway: RunningService, seed: Seed, key: SeededKey, signer: StreamTokenSigner, pool: Pool
) -> None:
    run_id = await seed.run(key)
    token, _ = signer.sign(run_id, key.tenant_id, key.key_id, 60)
    async with pool.connection() as connection:
        await revoke_key(connection, key.key_id)
    check_problem(await ask(gateway, run_id, query=f"?token={token}"), 401, "unauthorized")


# ---- order of refusals, CORS


async def test_refusals_come_in_their_order(gateway: RunningService, seed: Seed) -> None:
    writer = await seed.key(scopes=("write",))
    check_problem(await ask(gateway, "no-uuid", "nobody", query="?after_seq=x"), 401, "unauthorized")
    check_problem(await ask(gateway, "no-uuid", writer.text, query="?after_seq=x"), 400, "bad_position")
    check_problem(await ask(gateway, "no-uuid", writer.text), 403, "scope_missing")


async def test_browsers_of_allowed_origins_may_ask(gateway: RunningService) -> None:
    response = await ask(
        gateway,
        new_run_id(),
        method="OPTIONS",
        headers=[
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization,last-event-id,cache-control,traceparent"),
        ],
    )
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in response.headers


async def test_other_origins_get_no_leave(gateway: RunningService, seed: Seed, key: SeededKey) -> None:
    run_id = await seed.run(key, status="success")
    for origin in (
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
        "http://localhost:5173",
    ):
        async with Watcher(gateway.url, run_id, key=key.text, headers={"Origin": origin}) as watcher:
            await await_stream_completion(watcher)
        assert "access-control-allow-origin" not in watcher.headers
        assert watcher.headers["vary"] == "Origin"


async def test_cors_is_on_streams_and_on_204(gateway: RunningService, seed: Seed, key: SeededKey) -> None:
    run_id = await seed.run(key, status="success")
    for after_seq, status in ((0, 200), ("tail", 204)):
        async with Watcher(
            gateway.url, run_id, key=key.text, after_seq=after_seq, headers={"Origin": ORIGIN}
        ) as watcher:
            await watcher.until_closed()
        assert watcher.status == status
        assert watcher.headers["access-control-allow-origin"] == ORIGIN
        assert watcher.headers["vary"] == "Origin"
        assert "Location" in watcher.headers["access-control-expose-headers"]


async def test_a_connection_too_many_is_closed_as_it_comes_and_counted(
    settings_with: Callable[..., Settings],
) -> None:
    few = settings_with(max_connections=2)
    async with running(serve, few) as service, httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        text = (await client.get(f"{service.url}/metrics")).text
        assert "juinie_stream_connections_refused_total 0.0" in text
        taken, too_many = await connect_raw(service.port), await connect_raw(service.port)
        assert await too_many.read_all() == b""
        text = (await client.get(f"{service.url}/metrics")).text  # on the connection that it has
        assert "juinie_stream_connections_refused_total 1.0" in text
        taken.leave()
        too_many.leave()


async def test_probes_answer(gateway: RunningService) -> None:
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, base_url=gateway.url) as client:
        live, ready, metrics = await asyncio.gather(*map(client.get, ("/livez", "/readyz", "/metrics")))
    assert (live.status_code, ready.json()) == (200, {"ready": True, "waiting_for": []})
    assert "juinie_streams_open 0.0" in metrics.text
