"""Python's `httpx-sse`, as it is. It does not reconnect: the loop around it is what its users write."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest
from httpx_sse import aconnect_sse


@pytest.fixture
def httpx_sse_client(client_log):
    """A client that follows a stream until it is told, by 204 or a refusal, that there is no more."""

    @asynccontextmanager
    async def start(url, key, **_):
        log = client_log()
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"}, timeout=30, verify=False
        ) as http:
            following = asyncio.create_task(_follow(http, url, log))
            yield log
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    return start


async def _follow(http, url, log):
    last_event_id, retry_seconds, status = "", 1.0, 200
    while status == 200:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        try:
            async with aconnect_sse(http, "GET", url, headers=headers) as source:
                if (status := source.response.status_code) != 200:
                    break
                await log.note("open")
                async for frame in source.aiter_sse():
                    retry_seconds = retry_seconds if frame.retry is None else frame.retry / 1000
                    await _tell(log, frame)
                    # Frames before the first event of a connection have none: it decodes each anew.
                    last_event_id = frame.id or last_event_id
        except httpx.TransportError:
            await log.note("lost")
        await asyncio.sleep(retry_seconds)
    await log.note("stopped", status=status)


async def _tell(log, frame):
    """This client passes on frames without data, too."""
    if frame.event != "message":
        await log.note(frame.event, **json.loads(frame.data))
    elif frame.data:
        await log.note("event", id=frame.id, **json.loads(frame.data))


async def test_sees_every_event_once_whatever_is_cut_and_stops_at_204(rough_ride, httpx_sse_client):
    client, proxy = await rough_ride(httpx_sse_client)

    assert client.named("stopped") == [{"fact": "stopped", "status": 204}]
    assert all("after_seq=2" in request for request in proxy.requests)
    assert all("\r\nlast-event-id: " in request for request in proxy.requests[1:])


async def test_a_wrong_key_stops_it_with_401(api, stack, httpx_sse_client):
    url = f"{stack.gateway.url}/v1/runs/{await api.new_run()}/stream"

    async with httpx_sse_client(url, key="jn_wrong") as client:
        await client.until("stopped")

    assert client.facts == [{"fact": "stopped", "status": 401}]
