"""A revoked key is good for nothing after 60 s, whatever its requests wait for. Time is the key ring's, moved by hand."""

import asyncio
from typing import Any

import httpx
import pytest

from juinie_api.core import republish
from juinie_api.edges import call
from juinie_shared.db.keys import revoke_key
from juinie_shared.runtime import keys
from juinie_testkit.waits import eventually

JUST_REMEMBERED = keys.REMEMBER_SECONDS - 1
FORGOTTEN = 2.0


class Clock:
    """The key ring's, which stands still unless told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keys, "time", clock)
    return clock


async def revoke(api: Any) -> None:
    async with api.pool.connection() as connection:
        assert await revoke_key(connection, api.key.key_id)


async def long_polls(api: Any, count: int) -> None:
    async with httpx.AsyncClient(base_url=api.service.url, trust_env=False, timeout=30) as probe:

        async def wait() -> bool:
            return f"juinie_api_long_polls {count}.0" in (await probe.get("/metrics")).text

        await eventually(wait, 20, f"{count} requests that wait for a run")


def started(answer: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(answer)


async def test_those_that_wait_are_refused_what_comes_after_the_time_of_a_revoked_key(clock: Clock, api: Any):
    run_id = (await api.create())["run_id"]
    other = api.client_of(await api.seed.key())
    await revoke(api)
    clock.now += JUST_REMEMBERED
    waits = [
        started(api.client.get(f"/v1/runs/{run_id}/wait", params={"timeout_seconds": 60})),
        started(api.client.get(f"/v1/runs/{run_id}/events", params={"after_seq": 1, "wait_seconds": 30})),
    ]
    await long_polls(api, 2)
    clock.now += FORGOTTEN
    assert (
        await other.post(f"/v1/runs/{run_id}/finish", json={"status": "error", "start": False})
    ).status_code == 200
    assert [(await wait).status_code for wait in waits] == [401, 401]
    await other.aclose()


async def test_those_that_wait_in_vain_are_looked_at_again(
    clock: Clock, api: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(call, "LOOK_AGAIN_SECONDS", 0.05)
    run_id = (await api.create(claim={"worker_id": "w", "lease_seconds": 60}))["run_id"]
    waits = [
        started(api.client.get(f"/v1/runs/{run_id}/wait", params={"timeout_seconds": 60})),
        started(api.client.get(f"/v1/runs/{run_id}/events", params={"after_seq": 2, "wait_seconds": 30})),
        started(api.claim("agent", wait_seconds=30)),
    ]
    await long_polls(api, 2)
    await api.until_waiting(1)
    await revoke(api)
    clock.now += JUST_REMEMBERED + FORGOTTEN
    async with asyncio.timeout(20):  # none of them waits for so short a time
        assert [(await wait).status_code for wait in waits] == [401, 401, 401]


async def test_no_run_is_taken_for_a_worker_whose_key_was_revoked(clock: Clock, api: Any):
    other = api.client_of(await api.seed.key())
    claim = started(api.claim("agent", wait_seconds=30))
    await api.until_waiting(1)
    await revoke(api)
    clock.now += JUST_REMEMBERED + FORGOTTEN
    run = (await other.post("/v1/runs", json={"agent": "agent"})).json()
    await eventually(lambda: claim.done(), 20, "the worker is sent away")
    assert (await claim).status_code == 401
    assert (await other.get(f"/v1/runs/{run['run_id']}")).json()["status"] == "pending"
    await other.aclose()


async def test_a_body_that_takes_long_is_refused_with_its_key(
    clock: Clock, api: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(call, "AT_ONCE_SECONDS", 0)
    run_id = (await api.create())["run_id"]
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly():
        yield b'{"events":['
        begun.set()
        await go_on.wait()
        yield b'{"type":"x"}]}'

    headers = {"Content-Type": "application/json"}
    append = started(api.client.post(f"/v1/runs/{run_id}/events", content=slowly(), headers=headers))
    await begun.wait()
    assert (await api.client.get(f"/v1/runs/{run_id}")).status_code == 200
    await revoke(api)
    clock.now += JUST_REMEMBERED + FORGOTTEN
    go_on.set()
    assert (await append).status_code == 401
    assert len(await api.rows("SELECT FROM run_event")) == 1


async def test_a_republish_that_waits_ends_with_its_key(
    clock: Clock, api: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(republish, "STATEMENT_SEQS", 2)
    monkeypatch.setattr(republish, "DEEP_EVENTS", 1)
    monkeypatch.setattr(republish, "ROOM_SECONDS", 0.01)
    run_id = (await api.create())["run_id"]
    await api.append(run_id, *"abcdef")
    body = {"from_seq": 1, "to_seq": 100}
    again = started(api.client.post(f"/v1/admin/runs/{run_id}/republish", json=body))
    await eventually(lambda: written(api, 3), 20, "a part of it is written, and the rest waits for room")
    await revoke(api)
    clock.now += JUST_REMEMBERED + FORGOTTEN
    assert (await asyncio.wait_for(again, 20)).status_code == 401
    assert await written(api, 3)


async def written(api: Any, rows: int) -> bool:
    return len(await api.rows("SELECT FROM outbox")) == rows
