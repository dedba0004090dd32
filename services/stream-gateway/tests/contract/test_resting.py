"""A stream that has nothing to wait for has no task: and goes on all the same, whatever befalls it then."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from types import MethodType
from typing import Any
from uuid import UUID

import pytest

from juinie_shared.runtime.http_server import GuardedProtocol
from juinie_shared.runtime.pace import Pace
from juinie_stream_gateway.app import serve
from juinie_stream_gateway.core.places import Place
from juinie_stream_gateway.edges import open_stream
from juinie_stream_gateway.edges.connection import HttpConnection
from juinie_stream_gateway.edges.open_stream import OpenStreams
from juinie_stream_gateway.edges.outlet import ResponseOutlet
from juinie_stream_gateway.settings import Settings
from juinie_testkit.raw_stream import LAST_CHUNK, RawStream, connect_raw, stream_request
from juinie_testkit.running import RunningService, running
from juinie_testkit.scrape import until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.turns import turns
from juinie_testkit.waits import eventually

WATCHERS = 20


def answering() -> list[asyncio.Task[object]]:
    """The tasks that run for requests."""
    return [
        task
        for task in asyncio.all_tasks()
        if getattr(task.get_coro(), "__qualname__", "") == GuardedProtocol._run.__qualname__
    ]


async def all_rest() -> None:
    await eventually(lambda: not answering(), 20, "streams without a task")


@pytest.fixture
async def run_id(seed: Seed, key: SeededKey) -> UUID:
    return await seed.run(key)


@pytest.fixture
async def resting(gateway: RunningService, key: SeededKey, run_id: UUID) -> AsyncGenerator[list[RawStream]]:
    """Watchers of `run_id` that have all that is stored."""
    clients = [await connect_raw(gateway.port) for _ in range(WATCHERS)]
    for client in clients:
        await client.send(stream_request(run_id, key.text))
    for client in clients:
        await client.read_until(b"stream.caught_up")
    await all_rest()
    yield clients
    for client in clients:
        client.leave(reset=True)


async def test_events_come_without_a_task_and_the_end_closes_in_the_right_way(
    topic, seed: Seed, run_id: UUID, resting: list[RawStream]
) -> None:
    seq, _ = await seed.append(run_id, ("TEXT", {"delta": "live"}))
    await topic.publish(run_id, seq)
    for client in resting:
        await client.read_until(b"\nid: %d\n\n" % seq)
    assert answering() == []
    await topic.publish(run_id, await seed.finish(run_id))
    for client in resting:
        await client.read_until(LAST_CHUNK)
        assert client.received.count(b"stream.end") == 1
    await all_rest()


async def test_who_leaves_while_it_rests_gives_its_place_back(
    gateway: RunningService, resting: list[RawStream]
) -> None:
    await until_metric(gateway.url, "juinie_streams_open", WATCHERS)
    while resting:
        resting.pop().leave(reset=True)
    await until_metric(gateway.url, "juinie_streams_open", 0)


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_stream, "OVER_AT_ONCE", 3)


@pytest.mark.usefixtures("few_at_once")
async def test_of_a_crowd_that_leaves_at_once_a_few_are_ended_in_each_turn(
    gateway: RunningService, resting: list[RawStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, is_over = Counter[int](), OpenStreams.is_over
    with turns() as turn:

        def count(streams: OpenStreams, outlet: ResponseOutlet, place: Place, reason: str) -> None:
            ended[turn()] += 1
            is_over(streams, outlet, place, reason)

        monkeypatch.setattr(OpenStreams, "is_over", count)
        while resting:
            resting.pop().leave(reset=True)
        await until_metric(gateway.url, "juinie_streams_open", 0)
    assert max(ended.values()) == 3
    assert ended.total() == WATCHERS


@pytest.mark.usefixtures("few_at_once")
async def test_of_a_crowd_whose_run_ends_a_few_are_woken_in_each_turn(
    topic, seed: Seed, run_id: UUID, resting: list[RawStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    woken, wake = Counter[int](), HttpConnection.wake
    with turns() as turn:

        def count(connection: HttpConnection, rest: Any) -> None:
            woken[turn()] += 1
            wake(connection, rest)

        monkeypatch.setattr(HttpConnection, "wake", count)
        await topic.publish(run_id, await seed.finish(run_id))
        for client in resting:
            await client.read_until(LAST_CHUNK)
    assert max(woken.values()) == 3
    assert woken.total() == WATCHERS


async def test_who_leaves_at_the_end_before_its_turn_has_come_gives_its_place_back(
    topic,
    gateway: RunningService,
    seed: Seed,
    run_id: UUID,
    resting: list[RawStream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many clients do: they have what they came for."""
    waiting: list[MethodType] = []
    monkeypatch.setattr(Pace, "do", lambda _pace, act: waiting.append(act))
    await topic.publish(run_id, await seed.finish(run_id))
    for client in resting:
        await client.read_until(b"stream.end")
    while resting:
        resting.pop().leave(reset=True)
    streams = [act.__self__ for act in waiting]
    await eventually(lambda: all(stream._outlet.gone for stream in streams), 10, "all have left")
    assert len(streams) == WATCHERS
    for act in waiting:
        act()
    await until_metric(gateway.url, "juinie_streams_open", 0)
    await all_rest()


@pytest.mark.usefixtures("topic")
async def test_who_rests_is_sent_away_by_a_drain_without_a_clean_end(
    settings_with: Callable[..., Settings], key: SeededKey, run_id: UUID
) -> None:
    async with running(serve, settings_with()) as service:
        client = await connect_raw(service.port)
        await client.send(stream_request(run_id, key.text))
        await client.read_until(b"stream.caught_up")
        await all_rest()
        await service.stop()
        received = await client.read_all()
    assert b'{"reason":"draining"}' in received
    assert not received.endswith(LAST_CHUNK)
    client.leave()
