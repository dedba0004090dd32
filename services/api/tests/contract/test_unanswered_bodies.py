"""Bodies that arrive slowly, or wait for their answer: what they make the api hold together, and that others find room."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from juinie_api.app import serve
from juinie_testkit.running import RunningService, running
from juinie_testkit.scrape import metric, until_metric

KIB = 1024
HELD = "juinie_api_unanswered_bytes"
REFUSED = "juinie_api_bodies_refused_total"


def body_of(size: int) -> bytes:
    return json.dumps({"events": [{"type": "x", "data": "x" * (size - 60)}]}).encode().ljust(size)


@pytest.fixture
async def service(settings: Any) -> AsyncGenerator[RunningService]:
    small = settings.model_copy(update={"max_request_bytes": 256 * KIB, "max_unanswered_bytes": 1024 * KIB})
    async with running(serve, small) as service:
        yield service


@contextmanager
def half_sent(service: RunningService, key: str, path: str, size: int) -> Iterator[None]:
    """A client that sends so much of a body of 256 KiB, and no more."""
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(f"{head}Content-Length: {256 * KIB}\r\n\r\n".encode() + b" " * size)
        yield


async def append(client: httpx.AsyncClient, path: str, body: bytes, **headers: str) -> httpx.Response:
    headers = {"Content-Type": "application/json", **headers}
    return await client.post(path, content=body, headers=headers)


async def test_half_sent_bodies_leave_room_for_others(service: RunningService, api: Any):
    other = await api.seed.key("b")
    async with api.client_of_service(service) as mine, api.client_of_service(service, other) as others:
        created = await others.post("/v1/runs", json={"agent": "a"})
        my_path = f"/v1/runs/{(await api.create())['run_id']}/events"
        other_path = f"/v1/runs/{created.json()['run_id']}/events"
        with ExitStack() as stack:
            for number in (1, 2):
                stack.enter_context(half_sent(service, api.key.text, my_path, 200 * KIB))
                await until_metric(service.url, HELD, number * 200 * KIB)
            refused = await append(mine, my_path, body_of(200 * KIB))
            assert (refused.status_code, refused.json()["code"]) == (503, "server_busy")
            assert int(refused.headers["retry-after"]) >= 1
            assert await metric(service.url, REFUSED) == 1
            assert (await append(mine, my_path, body_of(10 * KIB))).status_code == 201
            assert (await append(others, other_path, body_of(200 * KIB))).status_code == 201
            for _ in range(20):
                stack.enter_context(half_sent(service, api.key.text, my_path, 200 * KIB))
            await until_metric(service.url, REFUSED, 21)
            assert await metric(service.url, HELD) <= 512 * KIB
            assert (await append(others, other_path, body_of(200 * KIB))).status_code == 201
        await until_metric(service.url, HELD, 0)
        assert (await append(mine, my_path, body_of(200 * KIB))).status_code == 201


async def test_body_counts_until_it_is_answered(service: RunningService, api: Any):
    run_id = (await api.create())["run_id"]
    async with api.client_of_service(service) as client, api.pool.connection() as connection:
        async with connection.transaction():
            await connection.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", run_id)
            waiting = asyncio.create_task(append(client, f"/v1/runs/{run_id}/events", body_of(100 * KIB)))
            await until_metric(service.url, HELD, 100 * KIB)
        assert (await waiting).status_code == 201
        await until_metric(service.url, HELD, 0)


async def test_compressed_body_counts_as_what_it_becomes(service: RunningService, api: Any):
    run_id = (await api.create())["run_id"]
    path = f"/v1/runs/{run_id}/events"
    async with api.client_of_service(service) as client:
        with ExitStack() as stack:
            for number in (1, 2):
                stack.enter_context(half_sent(service, api.key.text, path, 200 * KIB))
                await until_metric(service.url, HELD, number * 200 * KIB)
            bomb = gzip.compress(body_of(200 * KIB))
            assert len(bomb) < 4 * KIB
            refused = await append(client, path, bomb, **{"Content-Encoding": "gzip"})
            assert (refused.status_code, refused.json()["code"]) == (503, "server_busy")
        await until_metric(service.url, HELD, 0)
        assert (await append(client, path, bomb, **{"Content-Encoding": "gzip"})).status_code == 201


@pytest.mark.parametrize("fault", ["too large", "no json", "no run"])
async def test_refused_body_is_held_no_more(service: RunningService, api: Any, fault: str):
    run_id = (await api.create())["run_id"] if fault != "no run" else "0" * 32
    body = {"too large": body_of(257 * KIB), "no json": b"{" * 100 * KIB, "no run": body_of(100 * KIB)}[fault]
    async with api.client_of_service(service) as client:
        answer = await append(client, f"/v1/runs/{run_id}/events", body)
    assert answer.status_code == {"too large": 413, "no json": 400, "no run": 404}[fault]
    await until_metric(service.url, HELD, 0)


async def test_worker_that_waits_for_a_run_holds_nothing(service: RunningService, api: Any):
    names = [f"{number:0250}" for number in range(100)]
    claim = {"agents": names, "worker_id": "w", "wait_seconds": 30}
    body = json.dumps(claim).encode()
    assert len(body) > 16 * KIB
    async with api.client_of_service(service) as client:
        await until_metric(service.url, HELD, 0)
        waiting = asyncio.create_task(append(client, "/v1/claims", body))
        await until_metric(service.url, "juinie_api_claims_waiting", 1)
        assert await metric(service.url, HELD) == 0
        waiting.cancel()
