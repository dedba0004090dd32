"""The byte-level fuzzer finds what it is there to find, tried on servers that are wrong on purpose."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from juinie_testkit.backing.docker import free_port
from juinie_testkit.fuzz import wire
from juinie_testkit.fuzz.mutations import MUTATIONS, make_case
from juinie_testkit.fuzz.requests import api_requests
from juinie_testkit.fuzz.wire import knock

CASES = [("kind", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")] * 3


@asynccontextmanager
async def answering(answer: bytes, hang: bool = False) -> AsyncGenerator[int]:
    """A server that says this to everybody, and closes, or never does."""
    forever = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        await writer.drain()
        if hang:
            await forever.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    forever.set()
    server.close()


async def test_an_answer_of_5xx_is_a_failure_with_the_bytes_that_brought_it_about():
    async with answering(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n") as port:
        tally = await knock(port, CASES, random.Random(1))
    assert [failure.partition(": ")[0] for failure in tally.failures] == ["kind answered 500"] * 3
    assert "GET / HTTP/1.1" in tally.failures[0]


async def test_one_5xx_among_pipelined_answers_is_found():
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with answering(one + b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n" + one) as port:
        tally = await knock(port, CASES[:1], random.Random(1))
    assert (tally.statuses[200], tally.statuses[502], len(tally.failures)) == (2, 1, 1)


async def test_503_is_a_failure_though_it_says_when_to_come_again():
    async with answering(b"HTTP/1.1 503 Away\r\nRetry-After: 1\r\n\r\n") as port:
        tally = await knock(port, CASES, random.Random(1))
    assert [failure.partition(": ")[0] for failure in tally.failures] == ["kind answered 503"] * 3
    assert "Retry-After: 1" in tally.failures[0], "what was answered is told, too"


async def test_a_connection_that_stays_open_is_a_hang(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire, "HANG_SECONDS", 0.2)
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", hang=True) as port:
        tally = await knock(port, CASES, random.Random(1))
    assert [failure.partition(": ")[0] for failure in tally.failures] == ["kind hung"] * 3


async def test_a_port_that_is_closed_is_a_failure():
    tally = await knock(free_port(), CASES, random.Random(1))
    assert [failure.partition(": ")[0] for failure in tally.failures] == ["kind found the port closed"] * 3


async def test_no_answer_is_counted_and_no_failure():
    async with answering(b"") as port:
        tally = await knock(port, CASES, random.Random(1))
    assert (tally.silent, tally.failures, str(tally)) == (3, [], "3 cases (kind 3); answers ; none 3")


def test_same_seed_makes_the_same_cases_of_every_kind():
    requests = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    ]
    first, second = (
        [make_case(dice, requests) for _ in range(500)] for dice in (random.Random(7), random.Random(7))
    )
    assert first == second
    assert {kind for kind, _ in first} == {mutation.__name__ for mutation in MUTATIONS}


def test_requests_come_from_the_document_with_all_that_a_route_takes():
    document = {
        "paths": {
            "/v1/runs/{run_id}/events": {
                "post": {"requestBody": {}, "parameters": [{"name": "Idempotency-Key", "in": "header"}]},
                "get": {"parameters": [{"name": "limit", "in": "query"}]},
            }
        }
    }
    requests = api_requests(document, "jn_x", ["run-1"])
    first_lines = [request.partition(b" HTTP/1.1\r\n")[0] for request in requests]
    assert b"POST /v1/runs/run-1/events" in first_lines
    assert b"GET /v1/runs/run-1/events?limit=2" in first_lines
    with_key = next(request for request in requests if b"Idempotency-Key: key-1" in request)
    assert b"Authorization: Bearer jn_x\r\n" in with_key
    head, _, body = with_key.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert body.startswith(b'{"events": [')
