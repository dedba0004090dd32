"""What strangers send to any of the three ports: refused in one way, kept apart from whoever behaves, and told nothing."""

import asyncio
import os
import re
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from juinie_testkit.hostile import AMBIGUOUS, HOST, all_answers
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.stack import ServiceProcess, Stack
from juinie_testkit.waits import eventually

SLOW = int(os.environ.get("JUINIE_TEST_SLOW_CONNECTIONS", "500"))
"""Slow connections to each of the two public ports."""
PORTS = ("api", "publisher", "gateway")
STRANGERS = (
    "https://evil.example", "null", "http://localhost.evil.example", "http://localhost:80@evil.example", "http://localhost:99999999",
    "file://", "http://127.0.0.1.evil.example", "HTTP://LOCALHOST:5173",
)  # fmt: skip


@pytest.fixture(params=PORTS)
def service(request: pytest.FixtureRequest, stack: Stack) -> ServiceProcess:
    """Each service in turn."""
    return getattr(stack, request.param)


async def is_alive(service: ServiceProcess) -> bool:
    async with httpx.AsyncClient(verify=NO_TLS, base_url=service.url, trust_env=False, timeout=10) as client:
        return (await client.get("/livez")).status_code == 200


# ---- requests that may be read in two ways ----------------------------------------------------------------------------


async def test_ambiguous_requests_are_refused_and_take_what_follows_along(service: ServiceProcess):
    answers = await asyncio.gather(*(all_answers(service.port, sent) for sent in AMBIGUOUS.values()))
    for name, answer in zip(AMBIGUOUS, answers, strict=True):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), (name, answer[:200])
        assert answer.count(b"HTTP/1.1 ") == 1, (name, answer)
        lines = head.lower().split(b"\r\n")
        assert {b"connection: close", b"x-content-type-options: nosniff", b"vary: origin"} <= set(lines), name
        assert b"content-type: application/problem+json" in lines
        assert not [line for line in lines if line.startswith((b"server:", b"x-powered-by:"))]
        assert body.startswith(b'{"type":"urn:juinie:problem:'), name
        assert re.search(rb'"trace_id":"[0-9a-f]{32}"', body), name
    assert await is_alive(service)


async def test_pipelined_requests_are_answered_in_their_order(service: ServiceProcess):
    paths = [b"/livez", b"/metrics", b"/nowhere"] * 50
    sent = b"".join(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n" for path in paths)
    answers = (await all_answers(service.port, sent)).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200", b"404"] * 50 + [b"200"]


# ---- connections that do nothing --------------------------------------------------------------------------------------------


async def test_slow_connections_harm_nobody_and_are_closed(stack: Stack, key: str):
    """Both public ports at once; half of them begin a request, half say nothing. In 10 s they are gone."""
    services = [stack.api, stack.gateway]
    held = await asyncio.gather(
        *(asyncio.open_connection("127.0.0.1", service.port) for service in services for _ in range(SLOW))
    )
    try:
        for _, writer in held[::2]:
            writer.write(b"GET /livez HTTP/1.1\r\nX: ")
        async with httpx.AsyncClient(
            verify=NO_TLS, trust_env=False, timeout=30, headers={"Authorization": f"Bearer {key}"}
        ) as client:
            good = [await client.get(f"{service.url}/livez") for service in services]
            assert not [reader for reader, _ in held if reader.at_eof()], "they were open meanwhile"
            good += [await client.get(f"{service.url}/livez") for service in services for _ in range(49)]
            good += [await client.get(f"{stack.api.url}/v1/runs") for _ in range(50)]
            good += [await client.post(f"{stack.api.url}/v1/runs", json={"agent": "a"}) for _ in range(50)]
        assert [answer.status_code for answer in good] == [200] * 150 + [201] * 50
        await eventually(
            lambda: sum(reader.at_eof() for reader, _ in held) == len(held), 60, "all slow connections closed"
        )
    finally:
        for _, writer in held:
            writer.transport.abort()


# ---- what every answer carries, and whom it lets read it ------------------------------------------------------------------------


async def test_every_answer_is_kept_from_guessing_browsers_and_names_no_software(service: ServiceProcess):
    async with httpx.AsyncClient(verify=NO_TLS, base_url=service.url, trust_env=False, timeout=30) as client:
        answers = [
            await client.request(method, path)
            for method in ("GET", "POST", "DELETE", "OPTIONS", "TRACE", "BREW")
            for path in (
                "/livez",
                "/readyz",
                "/metrics",
                "/nowhere",
                "/v1/runs",
                f"/v1/runs/{uuid4()}/stream",
            )
        ]
    for answer in answers:
        assert answer.status_code < 500, answer.request
        assert answer.headers["x-content-type-options"] == "nosniff", answer.request
        assert not {"server", "x-powered-by", "set-cookie", "via"} & answer.headers.keys(), answer.request
        assert "uvicorn" not in str(answer.headers).lower() + answer.text.lower()[:2000]


@pytest.mark.parametrize("origin", STRANGERS)
async def test_no_stranger_may_read_an_answer(stack: Stack, key: str, origin: str):
    shown = {"Origin": origin, "Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, timeout=30) as client:
        for url in (
            f"{stack.api.url}/v1/runs",
            f"{stack.gateway.url}/v1/runs/{uuid4()}/stream",
            f"{stack.api.url}/livez",
        ):
            asked = {
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization",
            }
            for answer in (
                await client.get(url, headers=shown),
                await client.options(url, headers=shown | asked),
            ):
                assert "access-control-allow-origin" not in answer.headers, (url, answer.headers)
                assert "access-control-allow-credentials" not in answer.headers


# ---- ids and filters --------------------------------------------------------------------------------------------------------------


IDS = [
    "%00", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%252e%252e", "a" * 10_240, "1", "-1", "'%20OR%201=1--", "%7B{run_id}%7D", "urn:uuid:{run_id}",
    "{run_id}%00", "{run_id}%0A", "%20{run_id}", "{run_id};x", "%FF%FE", "%F0%9F%92%A9", "0x0", "null",
]  # fmt: skip


async def test_ids_that_are_none_are_as_unknown_as_any(stack: Stack, api: Any, key: str):
    run_id = await api.new_run()
    shown = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, timeout=30, headers=shown) as client:
        for template in IDS:
            text = template.replace("{run_id}", run_id)
            for url in (
                f"{stack.api.url}/v1/runs/{text}", f"{stack.api.url}/v1/runs/{text}/events", f"{stack.gateway.url}/v1/runs/{text}/stream",
            ):  # fmt: skip
                answer = await client.get(url)
                assert answer.status_code == 404, (url[:200], answer.text)
                assert answer.json()["code"] in {"run_not_found", "not_found"}
                assert len(answer.content) < 1000, "nothing of it is repeated"


async def test_sql_in_a_filter_is_text(stack: Stack, api: Any, key: str):
    await api.create(agent="a'b")
    async with httpx.AsyncClient(
        verify=NO_TLS, base_url=stack.api.url, trust_env=False, headers={"Authorization": f"Bearer {key}"}
    ) as client:
        for text in ("' OR '1'='1", "a' --", "'; DROP TABLE run; --", "%", "_", "\\", '"', "$1", "a\u2028b"):
            for name in ("agent", "thread_id"):
                answer = await client.get("/v1/runs", params={name: text})
                assert (answer.status_code, answer.json()["items"]) == (200, []), (name, text)
            active = await client.get(f"/v1/threads/{quote(text, safe='')}/active-run")
            assert active.status_code == 204, text
        found = await client.get("/v1/runs", params={"agent": "a'b"})
        assert [run["agent"] for run in found.json()["items"]] == ["a'b"]
