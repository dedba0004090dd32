"""Juinie behind a real nginx, with the configuration that the how-to prints, and with compression switched on besides."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from juinie_testkit.client import ApiClient
from juinie_testkit.nginx import Nginx
from juinie_testkit.stack import Stack
from juinie_testkit.waits import await_stream_completion, eventually
from juinie_testkit.watcher import Watcher

PAGE = Path(__file__).parents[2] / "docs/how-to/run-behind-nginx.md"
COMPRESSING = (
    "gzip on; gzip_proxied any; gzip_min_length 1; gzip_types application/json application/problem+json;"
)
LARGE = "x" * 2**20


@pytest.fixture(params=[None, "gzip"], ids=["as_printed", "gzip_on"])
def coding(request: pytest.FixtureRequest) -> str | None:
    """The content coding that nginx gives to JSON."""
    return request.param


@pytest.fixture
def nginx(coding: str | None, stack: Stack, make_nginx: Callable[..., Nginx]) -> Nginx:
    printed = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert printed, "the page prints a configuration"
    return make_nginx(printed[1], stack.api.port, stack.gateway.port, COMPRESSING if coding else "")


@pytest.fixture
def through(nginx: Nginx, key: str) -> Callable[..., Watcher]:
    """A strict watcher behind nginx, which would take a compressed stream if it was given one."""

    def watch(run_id: str, **how: Any) -> Watcher:
        credential = {} if "token" in how else {"key": key}
        return Watcher(nginx.url, run_id, headers={"Accept-Encoding": "gzip"}, **credential, **how)

    return watch


async def test_each_event_comes_before_the_next_is_written_and_the_end_is_clean(
    api: Any, through: Callable[..., Watcher]
):
    run_id = await api.new_run()
    async with through(run_id) as watcher:
        await watcher.until_seq(1)
        await watcher.until_caught_up()
        for number in range(10):
            await watcher.until_seq(await api.add(run_id, ("token", number)))
        await api.end(run_id)
        await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, 14))
    assert "content-encoding" not in watcher.headers
    assert watcher.headers["content-type"] == "text/event-stream"


async def test_watcher_that_drops_goes_on_after_its_last_event_id(api: Any, through: Callable[..., Watcher]):
    run_id = await api.new_run()
    await api.add(run_id, ("a", 1), ("b", 2))
    async with through(run_id) as watcher:
        await watcher.until_seq(4)
    last_seq = await api.end(run_id)
    async with watcher.resume() as resumed:
        await await_stream_completion(resumed)
    assert resumed.seqs == [last_seq]
    async with resumed.resume() as again:
        await again.until_closed()
    assert again.status == 204


async def test_gateway_that_goes_is_told_and_cuts_without_a_last_chunk(
    stack: Stack, api: Any, through: Callable[..., Watcher]
):
    run_id = await api.new_run()
    async with through(run_id) as watcher:
        await watcher.until_caught_up()
        await stack.gateway.stop()
        await watcher.until_closed()
    assert watcher.control("stream.reconnect") == {"reason": "draining"}
    assert watcher.state == "cut"

    async with through(run_id) as refused:  # by nginx, while there is no gateway
        await refused.until_closed()
    assert refused.status == 502
    await stack.gateway.start()
    async with watcher.resume() as resumed:
        await resumed.until_caught_up()
        await resumed.until_seq(await api.add(run_id, ("token", 1)))
    assert resumed.seqs[0] == 2


async def test_tokens_are_in_no_log_of_nginx(
    nginx: Nginx, api: Any, through: Callable[..., Watcher], key: str
):
    run_id = await api.new_run()
    token = await api.stream_token(run_id)
    async with through(run_id, token=token) as watcher:
        await watcher.until_seq(1)
    async with ApiClient(nginx.url, key) as client:
        await client.get(run_id)

    def written() -> str:
        return nginx.access_log.read_text() + nginx.log.read_text()

    # nginx writes the line once the answer is out, so a client may be back before it
    await eventually(
        lambda: f"GET /v1/runs/{run_id} " in written(), 10, "the answer's line in the access log"
    )
    assert token not in written()


async def test_api_answers_as_it_does_without_nginx(nginx: Nginx, coding: str | None, stack: Stack, key: str):
    async with ApiClient(nginx.url, key) as client, ApiClient(stack.api.url, key) as direct:
        once = f"once-{uuid4()}"
        run_id = (await client.create(idempotency_key=once))["run_id"]
        again = await client.http.post("/v1/runs", json={"agent": "agent"}, headers={"Idempotency-Key": once})
        assert (again.json()["run_id"], again.headers["Idempotency-Replayed"]) == (run_id, "true")
        await client.append(run_id, ("a", {"text": "ä"}))
        waited = await client.http.get(f"/v1/runs/{run_id}/wait?timeout_seconds=0")
        assert (waited.status_code, "Retry-After" in waited.headers) == (202, True)
        await client.finish(run_id)
        assert (await client.http.get(f"/v1/runs/{run_id}/wait")).status_code == 200
        assert await client.events(run_id) == await direct.events(run_id)

        page = await client.http.get(f"/v1/runs/{run_id}/events")
        assert page.headers.get("Content-Encoding") == coding
        known = {"If-None-Match": page.headers["ETag"]}
        assert (await client.http.get(f"/v1/runs/{run_id}/events", headers=known)).status_code == 304
        missing = await client.http.get(f"/v1/runs/{run_id}x")
        assert (missing.status_code, missing.headers["Content-Type"]) == (404, "application/problem+json")
        assert (await client.http.post("/v1/runs", json={"agent": "a", "input": LARGE})).status_code == 413
        assert (await client.http.get("/metrics")).status_code == 404
