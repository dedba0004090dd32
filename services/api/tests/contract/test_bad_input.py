"""What bad input gets: a problem with a stable code, never a 5xx, nothing half written, nothing of it repeated."""

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from juinie_testkit.raw_stream import connect_raw

TRACE_ID = re.compile("(?!0{32})[0-9a-f]{32}")
JSON = {"Content-Type": "application/json"}
GZIP = {**JSON, "Content-Encoding": "gzip"}
GOOD = b'{"events":[{"type":"x"}]}'


def is_trace_id(text: object) -> bool:
    return isinstance(text, str) and TRACE_ID.fullmatch(text) is not None


def with_data(data: bytes) -> bytes:
    return b'{"events":[{"type":"x","data":' + data + b"}]}"


BODIES: dict[str, tuple[dict[str, str], bytes, int, str]] = {
    "no JSON": (JSON, b"canary", 400, "bad_json"),
    "nothing": (JSON, b"", 400, "bad_json"),
    "NaN": (JSON, with_data(b"NaN"), 400, "bad_json"),
    "Infinity": (JSON, with_data(b"[-Infinity]"), 400, "bad_json"),
    "a raw NUL": (JSON, with_data(b'"\x00"'), 400, "bad_json"),
    "bad UTF-8": (JSON, with_data(b'"\xff"'), 400, "bad_json"),
    "a byte order mark": (JSON, b"\xef\xbb\xbf" + GOOD, 400, "bad_json"),
    "UTF-16": (JSON, GOOD.decode().encode("utf-16"), 400, "bad_json"),
    "a lone surrogate": (JSON, with_data(rb'"canary\ud800"'), 422, "invalid"),
    "65 deep": (JSON, with_data(b"[" * 65 + b"]" * 65), 422, "invalid"),
    "100,000 deep": (JSON, with_data(b"[" * 100_000 + b"]" * 100_000), 422, "invalid"),
    "100,000 open": (JSON, b"[" * 100_000, 422, "invalid"),
    "an unknown field": (JSON, b'{"events":[{"type":"x","canary":"canary"}]}', 422, "invalid"),
    "a reserved type": (JSON, b'{"events":[{"type":"run.canary"}]}', 422, "invalid"),
    "a line break in a type": (JSON, rb'{"events":[{"type":"a\ncanary"}]}', 422, "invalid"),
    "no object": (JSON, b'["canary"]', 422, "invalid"),
    "a name twice": (JSON, b'{"events":[],"events":[{"type":"x"}]}', 422, "invalid"),
    "1,001 events": (JSON, b'{"events":[' + b",".join([b'{"type":"x"}'] * 1001) + b"]}", 422, "invalid"),
    "half a million events that are none, in 1 KB": (
        GZIP,
        gzip.compress(b'{"events":[' + b"0," * 520_000 + b"0]}"),
        422,
        "invalid",
    ),
    "a hundred thousand unknown fields": (
        JSON,
        b"{" + b",".join(b'"%x":0' % n for n in range(100_000)) + b"}",
        422,
        "invalid",
    ),
    "an event too large": (JSON, with_data(b'"' + b"x" * 262_143 + b'"'), 413, "too_large"),
    "a request too large": (JSON, b" " * 1_048_577, 413, "request_too_large"),
    "a gzip bomb": (GZIP, gzip.compress(b" " * 50_000_000), 413, "request_too_large"),
    "no gzip": (GZIP, GOOD, 400, "bad_gzip"),
    "half a gzip": (GZIP, gzip.compress(GOOD)[:-9], 400, "bad_gzip"),
    "gzip and more": (GZIP, gzip.compress(GOOD) + b"x", 400, "bad_gzip"),
    "gzip and half of another": (GZIP, gzip.compress(GOOD) + gzip.compress(b" ")[:-9], 400, "bad_gzip"),
    "a gzip bomb in members": (GZIP, gzip.compress(b" " * 30_000) * 40, 413, "request_too_large"),
    "gzip in thousands of members": (GZIP, gzip.compress(GOOD) + gzip.compress(b"") * 5000, 400, "bad_gzip"),
    "another coding": ({**JSON, "Content-Encoding": "br"}, GOOD, 415, "unsupported_coding"),
    "two codings": ({**JSON, "Content-Encoding": "gzip, gzip"}, GOOD, 415, "unsupported_coding"),
    "no type": ({}, GOOD, 415, "unsupported_media_type"),
    "a form": ({"Content-Type": "application/x-www-form-urlencoded"}, GOOD, 415, "unsupported_media_type"),
    "another charset": (
        {"Content-Type": "application/json; charset=latin-1"},
        GOOD,
        415,
        "unsupported_media_type",
    ),
    "no JSON wanted": ({**JSON, "Accept": "text/html, application/json;q=0"}, GOOD, 406, "not_acceptable"),
    "anything but JSON": ({**JSON, "Accept": "*/*, application/json;q=0"}, GOOD, 406, "not_acceptable"),
}


async def test_bad_bodies(api: Any):
    run_id = (await api.create())["run_id"]
    for name, (headers, body, status, code) in BODIES.items():
        answer = await api.client.post(f"/v1/runs/{run_id}/events", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (name, answer.text)
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(problem) >= {"type", "title", "status", "detail", "code", "trace_id"}
        assert is_trace_id(problem["trace_id"])
        assert len(answer.content) < 16_384, name
        assert "canary" not in answer.text.replace("/events/0/canary", "")
    assert len(await api.events(run_id)) == 1, "nothing was written"


async def test_a_body_is_refused_while_it_arrives(api: Any):
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 200 * 65_536:
            yield b" " * 65_536
            sent += 65_536

    answer = await api.client.post("/v1/runs", content=endless(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


def raw_head(path: str, *headers: str) -> bytes:
    """Of a POST of JSON, with these headers to the letter."""
    lines = (f"POST {path} HTTP/1.1", "Host: a", "Content-Type: application/json", *headers)
    return "\r\n".join((*lines, "", "")).encode()


@pytest.mark.parametrize("path", ["/v1/runs", "/v1/runs/{run_id}/events"])
async def test_a_body_that_says_it_is_too_large_is_refused_before_any_of_it_is_asked_for(api: Any, path: str):
    path = path.format(run_id=(await api.create())["run_id"])
    client = await connect_raw(api.service.port)
    key = f"Authorization: Bearer {api.key.text}"
    await client.send(raw_head(path, key, "Content-Length: 99999999999", "Expect: 100-continue"))
    await client.read_until(b"request_too_large")
    client.leave()
    assert client.received.startswith(b"HTTP/1.1 413 ")


async def test_a_compressed_body_that_comes_to_nothing_is_refused_too(api: Any):
    sent = 0

    async def empty_blocks() -> Any:
        nonlocal sent
        yield b"\x1f\x8b\x08\x00\0\0\0\0\0\xff"
        while sent < 200 * 65_535:
            yield b"\x00\x00\x00\xff\xff" * 13_107
            sent += 65_535

    answer = await api.client.post("/v1/runs", content=empty_blocks(), headers=GZIP)
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


async def test_compressed_bodies_are_welcome(api: Any):
    run_id = (await api.create())["run_id"]
    one = gzip.compress(GOOD)
    several = b"".join(gzip.compress(GOOD[at : at + 1]) for at in range(len(GOOD))) + gzip.compress(b"")
    for body in (one, several, gzip.compress(GOOD + b" " * 900_000)):
        answer = await api.client.post(f"/v1/runs/{run_id}/events", content=body, headers=GZIP)
        assert answer.status_code == 201, answer.text


async def test_a_compressed_body_may_arrive_byte_by_byte(api: Any):
    run_id = (await api.create())["run_id"]

    async def drops() -> Any:
        for byte in gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:]):
            yield bytes([byte])

    answer = await api.client.post(f"/v1/runs/{run_id}/events", content=drops(), headers=GZIP)
    assert answer.status_code == 201, answer.text


async def test_values_at_their_limit_are_taken(api: Any):
    run_id = (await api.create())["run_id"]
    for data in (b'"' + b"x" * 262_142 + b'"', b"[" * 64 + b"]" * 64):
        answer = await api.client.post(f"/v1/runs/{run_id}/events", content=with_data(data), headers=JSON)
        assert answer.status_code == 201
    assert (await api.create(agent="a" * 256, thread_id="ü" * 256))["agent"] == "a" * 256


@pytest.mark.parametrize("body", [b'{"force":true}', b"{}", b"x"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_nobody_would_read_is_refused(api: Any, body: bytes, chunked: bool):
    run = (await api.create())["run_id"]
    await api.finish(run)

    async def chunks() -> Any:
        yield body

    for method, path in (
        ("DELETE", f"/v1/runs/{run}"), ("GET", f"/v1/runs/{run}"), ("GET", "/v1/runs"), ("GET", f"/v1/runs/{run}/events"),
        ("GET", f"/v1/runs/{run}/wait"), ("GET", "/v1/threads/t/active-run"), ("GET", "/v1/admin/outbox"), ("GET", "/v1/admin/outbox/dead-letters"),
    ):  # fmt: skip
        content = chunks() if chunked else body
        answer = await api.client.request(method, path, content=content, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), (method, path, answer.text)
        assert [fault["code"] for fault in answer.json()["errors"]] == ["unexpected_body"]
    assert (await api.client.get(f"/v1/runs/{run}")).status_code == 200, "not deleted"


async def test_no_body_is_no_fault_however_it_is_said(api: Any):
    run = (await api.create())["run_id"]
    await api.finish(run)

    async def nothing() -> Any:
        return
        yield

    assert (await api.client.get(f"/v1/runs/{run}", headers={"Content-Length": "0"})).status_code == 200
    assert (await api.client.request("GET", f"/v1/runs/{run}", content=nothing())).status_code == 200
    assert (await api.client.request("DELETE", f"/v1/runs/{run}", content=b"")).status_code == 204


VERBS = ("events", "finish", "cancel", "heartbeat", "stream-tokens")


def requests(run_id: str) -> Iterator[tuple[str, str, int, str]]:
    run = f"/v1/runs/{run_id}"
    for bad in ("", "-2", "1e400", "1.0", " 7", "٣", "abc", "tail", "9" * 19, "9" * 4096, "0x1", "+1"):
        yield "GET", f"{run}/events?after_seq={httpx.QueryParams({'q': bad})['q']}", 400, "bad_position"
    for bad in ("limit=0", "limit=1001", "limit=x", "limit=1.5", "limit=1.0", "limit=1_0", "limit=%201", "limit=%2B1", "limit=%D9%A3", "wait_seconds=1e1",
                "wait_seconds=1_0", "wait_seconds=31", "wait_seconds=nan", "wait_seconds=-1",
                "types=", "types=a,,b", "types=%00", "types=a%0Ab"):  # fmt: skip
        yield "GET", f"{run}/events?{bad}", 422, "invalid"
    for bad in ("limit=0", "limit=201", "limit=1.0", "status=done", "agent=", "agent=%00", "created_after=yesterday",
                "created_after=2026-01-01T00:00:00"):  # fmt: skip
        yield "GET", f"/v1/runs?{bad}", 422, "invalid"
    for bad in ("x", "%00", "AAAA", "a" * 4096):
        yield "GET", f"/v1/runs?cursor={bad}", 400, "bad_cursor"
    for bad in ("61", "inf", "1e1", "-0.5", "", "%D9%A3"):
        yield "GET", f"{run}/wait?timeout_seconds={bad}", 422, "invalid"
    for route in ("/v1/runs", run, f"{run}/events", f"{run}/wait", "/v1/threads/t/active-run"):
        yield "GET", f"{route}?canary=1", 400, "bad_query"
    for route in ("/v1/runs", "/v1/claims", *(f"{run}/{verb}" for verb in VERBS)):
        yield "POST", f"{route}?canary=1", 400, "bad_query"
    yield "GET", f"{run}/events?limit=1&limit=2", 400, "bad_query"
    for bad in ("abc", "%00", "..%2f..%2fetc", "%7B" + run_id + "%7D", "urn:uuid:" + run_id, run_id.replace("-", ""),
                run_id + "%0A", "a" * 10_000, "'; DROP TABLE run; --"):  # fmt: skip
        yield "GET", f"/v1/runs/{bad}", 404, "*"
        yield "POST", f"/v1/runs/{bad}/cancel", 404, "*"
    yield "GET", "/v1/threads/%00/active-run", 204, ""
    yield "GET", "/v1", 404, "not_found"
    yield "GET", "/v1/runs/", 404, "*"
    yield "GET", "/v1/claims", 405, "method_not_allowed"
    yield "PUT", run, 405, "method_not_allowed"
    yield "POST", run, 405, "method_not_allowed"
    yield "HEAD", run, 405, "*"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/runs", "GET, POST"), ("/v1/runs/{}", "DELETE, GET"), ("/v1/runs/{}/events", "GET, POST")],
)
async def test_a_method_that_is_not_taken_is_told_which_are(api: Any, path: str, allowed: str):
    answer = await api.client.request("PATCH", path.format((await api.create())["run_id"]))
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("name", ["Content-Type", "Content-Encoding", "Idempotency-Key"])
async def test_a_header_that_counts_may_be_given_once(api: Any, name: str):
    headers = [("Content-Type", "application/json"), (name, "text/plain"), (name, "identity")]
    answer = await api.client.post("/v1/runs", content=b'{"agent":"a"}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "repeated_header")


async def test_all_that_is_wrong_with_parameters_is_told_at_once(api: Any):
    answer = await api.client.get("/v1/runs?canary=1&agent=a&agent=b&limit=0&status=done&canary=2")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_query")
    faults = [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]]
    assert faults[:2] == [("query", "unknown_parameter"), ("agent", "duplicate")]
    assert {pointer for pointer, _ in faults[2:]} == {"limit", "status"}
    assert "canary" not in answer.text


async def test_white_space_behind_an_idempotency_key_or_a_lease_is_none_of_it(api: Any):
    claimed = (await api.claim_new()).json()
    run_id, token = claimed["run"]["run_id"], claimed["lease"]["token"]
    body = b'{"events":[{"type":"x"}]}'
    answers = list[bytes]()
    for space in ("", " ", "\t "):
        client = await connect_raw(api.service.port)
        head = raw_head(
            f"/v1/runs/{run_id}/events",
            f"X-Api-Key: {api.key.text}{space}",
            f"Idempotency-Key: k{space}",
            f"Juinie-Lease: {token}{space}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        await client.send(head + body)
        await client.read_until(b'"first_seq"')
        client.leave()
        answers.append(client.received)
    assert all(answer.startswith(b"HTTP/1.1 201 ") for answer in answers), answers
    assert [b"idempotency-replayed: true" in answer.lower() for answer in answers] == [False, True, True]


async def test_a_refused_preflight_is_a_problem(api: Any):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    answer = await api.client.options("/v1/runs", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "cors_refused")
    assert is_trace_id(answer.json()["trace_id"])
    assert answer.headers["content-type"] == "application/problem+json"
    assert "access-control-allow-origin" not in answer.headers


async def test_bad_paths_and_parameters(api: Any):
    run_id = (await api.create())["run_id"]
    for method, path, status, code in requests(run_id):
        answer = await api.client.request(method, path)
        assert answer.status_code == status, (method, path, answer.text)
        if status >= 400 and method != "HEAD":
            assert code in {"*", answer.json()["code"]}, (method, path, answer.text)
            assert "canary" not in answer.text


async def test_headers_that_may_come_once(api: Any):
    run_id = (await api.create())["run_id"]
    for name in ("Idempotency-Key", "Juinie-Lease", "Authorization", "Last-Event-ID"):
        value = api.client.headers["authorization"] if name == "Authorization" else "1"
        headers = [(name, value), (name, value)]
        if name != "Authorization":
            headers.append(("Authorization", api.client.headers["authorization"]))
        async with httpx.AsyncClient(base_url=api.service.url, trust_env=False) as client:
            answer = await client.get(f"/v1/runs/{run_id}", headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (400, 400), name


async def test_one_request_of_two_lengths_is_refused(api: Any):
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", api.service.port)
    head = b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    writer.write(head)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert problem["code"] == "bad_request"
    assert is_trace_id(problem["trace_id"])


async def test_every_answer_has_the_headers_that_keep_browsers_careful(api: Any):
    for path in ("/v1/runs", "/v1/nothing", "/v1/runs/x", "/docs", "/openapi.json"):
        headers = (await api.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert headers["cache-control"] == "no-store", path
        assert "server" not in headers
