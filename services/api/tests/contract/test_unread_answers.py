"""Clients that ask and never read the answer: what they make the api hold, and for how long."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from juinie_api.app import serve
from juinie_testkit.running import RunningService, running
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.waits import eventually

KIB = 1024
CLIENTS = 12
UNREAD = "juinie_api_unread_bytes"
CUT = "juinie_api_unread_answers_total"
PATHS = ("/v1/runs?limit=200", "/v1/runs/{run_id}/events?limit=1000")


@contextmanager
def asking(service: RunningService, key: str, path: str) -> Iterator[socket.socket]:
    """A client that has asked, and reads nothing by itself."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        client.connect(("127.0.0.1", service.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        client.setblocking(False)
        yield client


@pytest.fixture
async def run_id(api: Any) -> str:
    """A run of 6 MiB, and as much in the errors of others."""
    for _ in range(24):
        other = (await api.create())["run_id"]
        await api.finish(other, "error", error="x" * 250 * KIB, start=False)
    run_id = (await api.create())["run_id"]
    for _ in range(24):
        body = {"events": [{"type": "x", "data": "x" * 250 * KIB}]}
        assert (await api.client.post(f"/v1/runs/{run_id}/events", json=body)).status_code == 201
    return run_id


@pytest.mark.parametrize("path", PATHS)
async def test_no_answer_is_much_larger_than_a_page(path: str, run_id: str, api: Any):
    answer = await api.client.get(path.format(run_id=run_id))
    assert 4096 * KIB < len(answer.content) < (4096 + 300) * KIB


@pytest.mark.parametrize("path", PATHS)
async def test_answers_that_nobody_reads_are_bounded_together(
    path: str, run_id: str, settings: Any, api: Any
):
    small = settings.model_copy(update={"max_unread_bytes": 10 * 1024 * KIB})
    async with running(serve, small) as service:
        with ExitStack() as stack:
            most = 0.0
            for number in range(1, CLIENTS + 1):
                stack.enter_context(asking(service, api.key.text, path.format(run_id=run_id)))
                await until_metric(service.url, CUT, max(0, number - 2))
                most = max(most, await metric(service.url, UNREAD))
            assert (await api.client.get(f"{service.url}/v1/runs")).status_code == 200
        assert 8 * 1024 * KIB < most <= 10 * 1024 * KIB
        await until_metric(service.url, UNREAD, 0)


@pytest.mark.usefixtures("run_id")
async def test_an_answer_that_nobody_reads_is_held_for_a_time(settings: Any, api: Any):
    async with running(serve, settings.model_copy(update={"unread_seconds": 1.0})) as service:
        with asking(service, api.key.text, PATHS[0]) as client:
            await until_metric(service.url, CUT, 1)
            assert await metric(service.url, UNREAD) == 0
            await eventually(
                lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0, 20, "it is reset"
            )


@pytest.mark.usefixtures("run_id")
async def test_a_client_that_reads_steadily_gets_its_answer_however_long_it_takes(settings: Any, api: Any):
    async with running(serve, settings.model_copy(update={"unread_seconds": 1.0})) as service:
        with asking(service, api.key.text, PATHS[0]) as client:
            read, whole = bytearray(), 0
            while not whole or len(read) < whole:
                read += await asyncio.get_running_loop().sock_recv(client, 8 * KIB)
                await asyncio.sleep(0.004)
                head, _, _ = read.partition(b"\r\n\r\n")
                whole = (
                    len(head) + 4 + int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                )
        assert await metric(service.url, CUT) == 0
