"""Watchers that read slowly or not at all: what each may hold, and what the others feel of it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from juinie_shared.runtime.slow_readers import FLOOR_BYTES_PER_SECOND
from juinie_stream_gateway.app import serve
from juinie_stream_gateway.edges import admit
from juinie_stream_gateway.edges.admit import LET_IN_AT_ONCE, Gate
from juinie_stream_gateway.settings import Settings
from juinie_stream_gateway.store import FINDING_AT_ONCE, Store
from juinie_testkit.raw_stream import LAST_CHUNK, RawStream, connect_raw, raw_stream, stream_request
from juinie_testkit.running import RunningService, running
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import await_stream_completion, eventually
from juinie_testkit.watcher import Watcher

KIB = 1024
DEAF = 10
UNSENT = "juinie_stream_unsent_bytes"
TINY_WINDOW = 4 * KIB


async def long_run(seed: Seed, key: SeededKey, event_bytes: int, total_bytes: int) -> UUID:
    run_id = await seed.run(key)
    for _ in range(max(1, total_bytes // (event_bytes * 50))):
        await seed.append(
            run_id, *[("text", "x" * event_bytes) for _ in range(min(50, total_bytes // event_bytes))]
        )
    return run_id


@asynccontextmanager
async def deaf_watchers(
    service: RunningService, run_id: UUID, key: SeededKey, count: int = DEAF
) -> AsyncGenerator[list[RawStream]]:
    """Clients that ask, see that it begins, and read no more."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(raw_stream(service.port, run_id, key.text, TINY_WINDOW))
            for _ in range(count)
        ]
        await asyncio.gather(*(client.read_until(b"run.created") for client in clients))
        yield clients


async def most_unsent(service: RunningService, at_least: float) -> float:
    """The most that is held, once it has reached `at_least` and is the same at ten looks in a row."""
    looks: list[float] = []

    async def settled() -> bool:
        looks.append(await metric(service.url, UNSENT))
        return max(looks) >= at_least and len(set(looks[-10:])) == 1 and len(looks) >= 10

    await eventually(settled, 30, f"at least {at_least:g} bytes are held, and no more come")
    return max(looks)


@pytest.mark.usefixtures("topic")
@pytest.mark.parametrize(
    ("event_bytes", "most_each"), [(300, 512 * KIB), (40 * KIB, 512 * KIB), (250 * KIB, 1024 * KIB)]
)
async def test_what_one_that_reads_nothing_holds_in_mid_backfill_is_bounded(
    event_bytes: int, most_each: int, settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    run_id = await long_run(seed, key, event_bytes, 5 * 1024 * KIB)
    async with running(serve, settings_with()) as service, deaf_watchers(service, run_id, key):
        held = await most_unsent(service, DEAF * 32 * KIB)
        assert held <= DEAF * most_each


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("event_bytes", "most_each"), [(300, 512 * KIB), (40 * KIB, 512 * KIB), (250 * KIB, 1024 * KIB)]
)
async def test_what_one_that_reads_nothing_holds_while_events_come_is_bounded(
    topic,
    event_bytes: int,
    most_each: int,
    settings_with: Callable[..., Settings],
    seed: Seed,
    key: SeededKey,
) -> None:
    run_id = await seed.run(key)
    async with running(serve, settings_with()) as service:
        await until_metric(service.url, 'juinie_stream_mode{mode="live"}', 1)
        async with deaf_watchers(service, run_id, key), Watcher(service.url, run_id, key=key.text) as watcher:
            looks = [0.0]
            for _ in range(20):
                size = min(200, 256 * KIB // event_bytes)
                first, last = await seed.append(run_id, *[("text", "x" * event_bytes) for _ in range(size)])
                await topic.publish(run_id, first, last)
                await watcher.until_seq(last)
                looks.append(await metric(service.url, UNSENT))
    assert DEAF * 32 * KIB <= max(looks) <= (DEAF + 1) * most_each


async def test_one_that_reads_again_misses_nothing_whatever_went_by(
    topic, settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    async with running(serve, settings_with(recent_bytes=1024 * KIB)) as service:
        await until_metric(service.url, 'juinie_stream_mode{mode="live"}', 1)
        run_id = await seed.run(key)
        async with raw_stream(service.port, run_id, key.text, TINY_WINDOW) as client:
            await client.read_until(b"stream.caught_up")
            for size in (300, 40 * KIB, 250 * KIB):
                for _ in range(6):
                    count = min(200, 512 * KIB // size)
                    first, last = await seed.append(run_id, *[("text", "x" * size) for _ in range(count)])
                    await topic.publish(run_id, first, last)
            end = await seed.finish(run_id)
            await client.read_until(LAST_CHUNK)
        assert seqs(client.received) == list(range(1, end + 1))


@pytest.mark.usefixtures("topic")
async def test_one_that_reads_nothing_is_told_why_and_cut(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    run_id = await long_run(seed, key, 40 * KIB, 5 * 1024 * KIB)
    async with (
        running(serve, settings_with(stream_slow_seconds=0.5)) as service,
        deaf_watchers(service, run_id, key) as clients,
    ):
        await until_metric(service.url, 'juinie_streams_closed_total{reason="slow"}', DEAF)
        await until_metric(service.url, "juinie_streams_open", 0)
        assert await metric(service.url, UNSENT) == 0
        received = [await client.read_all() for client in clients]
    assert not any(LAST_CHUNK in body for body in received)


@pytest.mark.usefixtures("topic")
@pytest.mark.timeout(180)
async def test_who_takes_less_than_the_floor_is_cut_and_who_takes_more_is_waited_for(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    """All of them need more than `stream_slow_seconds` for the run, which goes on twice as fast as one of the faster two reads."""
    too_slow, fast_enough = (0, FLOOR_BYTES_PER_SECOND // 20, FLOOR_BYTES_PER_SECOND // 2), (20_000, 50_000)
    run_id = await long_run(seed, key, 2 * KIB, 100 * KIB)
    async with running(serve, settings_with(stream_slow_seconds=4)) as service, AsyncExitStack() as stack:
        readers = [
            (rate, await stack.enter_async_context(raw_stream(service.port, run_id, key.text, TINY_WINDOW)))
            for rate in (*too_slow, *fast_enough)
        ]
        reading = asyncio.gather(*(read_steadily(client, rate) for rate, client in readers))
        for _ in range(10):
            await seed.append(run_id, *[("text", "x" * 2 * KIB) for _ in range(10)])
            await asyncio.sleep(0.5)
        await seed.finish(run_id)
        await reading
        assert {rate for rate, client in readers if LAST_CHUNK in client.received} == set(fast_enough)
        assert await metric(service.url, 'juinie_streams_closed_total{reason="slow"}') == len(too_slow)
        assert await metric(service.url, 'juinie_streams_closed_total{reason="client_left"}') == 0


async def read_steadily(client: RawStream, bytes_per_second: int) -> None:
    """Until the end, or until the connection is cut."""
    with contextlib.suppress(ConnectionResetError):
        while not client.received.endswith(LAST_CHUNK):
            await asyncio.sleep(0.1)
            client.look()
            if bytes_per_second and not await client.read(bytes_per_second // 10):
                return


@pytest.mark.usefixtures("topic")
async def test_one_whose_backlog_fits_into_the_kernel_is_told_that_it_is_slow(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    run_id = await long_run(seed, key, KIB, 20 * KIB)
    async with (
        running(serve, settings_with(stream_slow_seconds=1)) as service,
        raw_stream(service.port, run_id, key.text, TINY_WINDOW) as client,
    ):
        await until_metric(service.url, 'juinie_streams_closed_total{reason="slow"}', 1)
        await client.read_all()
    assert b'event: stream.reconnect\ndata: {"reason":"slow"}' in client.received
    assert LAST_CHUNK not in client.received


@pytest.mark.usefixtures("topic")
async def test_those_that_read_nothing_hold_no_connection_and_no_turn_of_the_database(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    run_id = await long_run(seed, key, 40 * KIB, 5 * 1024 * KIB)
    async with (
        running(serve, settings_with(backfill_concurrency=1)) as service,
        deaf_watchers(service, run_id, key, 20),
        Watcher(service.url, run_id, key=key.text) as watcher,
    ):
        end = await seed.finish(run_id)
        await await_stream_completion(watcher)
        assert await metric(service.url, "juinie_streams_open") == 20
    assert watcher.seqs == list(range(1, end + 1))


@pytest.mark.usefixtures("topic")
async def test_many_that_drop_and_return_at_once_are_all_caught_up_a_few_reads_at_a_time(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, runs_found = Reads(Store._read_pages), Reads(Store._find_runs)
    monkeypatch.setattr(Store, "_read_pages", pages.counted())
    monkeypatch.setattr(Store, "_find_runs", runs_found.counted())
    let_in = Reads(Gate._run)
    monkeypatch.setattr(Gate, "_run", let_in.counted())
    runs = [await seed.run(key) for _ in range(50)]
    for run_id in runs:
        await seed.append(run_id, *[("text", number) for number in range(30)])
    async with running(serve, settings_with()) as service:
        watchers = [RawReader(service, runs[number % 50], key) for number in range(500)]
        for after_seq in (0, 11):
            await asyncio.gather(*(watcher.come(after_seq) for watcher in watchers))
            assert await metric(service.url, "juinie_streams_open") == 500
            for watcher in watchers:
                watcher.drop()
        await until_metric(service.url, "juinie_streams_open", 0)
    assert all(watcher.seen == [*range(1, 32), *range(12, 32)] for watcher in watchers)
    assert (pages.most_at_once, runs_found.most_at_once) == (4, FINDING_AT_ONCE)
    assert let_in.most_at_once == LET_IN_AT_ONCE
    assert pages.count + runs_found.count < 500  # of 1,000 who came


async def test_who_waits_too_long_to_be_let_in_is_sent_away_for_a_while(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, inside = asyncio.Event(), asyncio.Semaphore(0)
    look_up = Gate._run

    async def hang(gate: Gate, run_text: str, caller: admit.Caller) -> Any:
        inside.release()
        await hanging.wait()
        return await look_up(gate, run_text, caller)

    monkeypatch.setattr(Gate, "_run", hang)
    monkeypatch.setattr(admit, "LET_IN_SECONDS", 0.2)
    run_id = await seed.run(key)
    async with running(serve, settings_with()) as service:
        clients = [await connect_raw(service.port) for _ in range(LET_IN_AT_ONCE + 1)]
        for client in clients[:-1]:
            await client.send(stream_request(run_id, key.text, 0))
            await inside.acquire()
        await clients[-1].send(stream_request(run_id, key.text, 0))
        await clients[-1].read_until(b'{"reason":"database_busy"}')
        assert clients[-1].received.startswith(b"HTTP/1.1 200 ")
        hanging.set()
        for client in clients[:-1]:
            await client.read_until(b"stream.caught_up")
        for client in clients:
            client.leave(reset=True)


class Reads:
    """How often this was called, and how many at once."""

    def __init__(self, read: Callable[..., Awaitable[Any]]) -> None:
        self._read, self._now = read, 0
        self.count = self.most_at_once = 0

    def counted(self) -> Callable[..., Awaitable[Any]]:
        async def read(*arguments: Any) -> Any:
            self.count += 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            try:
                return await self._read(*arguments)
            finally:
                self._now -= 1

        return read


class RawReader:
    """One of many: cheap, because it is the many that matter."""

    def __init__(self, service: RunningService, run_id: UUID, key: SeededKey) -> None:
        self._service, self._run_id, self._key = service, run_id, key
        self._client: RawStream | None = None
        self.seen: list[int] = []

    async def come(self, after_seq: int) -> None:
        """Until it has caught up. One that is sent away, as a machine that is busy with other things does, comes again."""
        while True:
            self._client = client = await connect_raw(self._service.port)
            await client.send(stream_request(self._run_id, self._key.text, after_seq))
            try:
                await client.read_until(b"stream.caught_up")
            except AssertionError:
                if b"stream.reconnect" not in client.received:
                    raise
            came = seqs(client.received)
            self.seen += came
            if b"stream.caught_up" in client.received:
                return
            after_seq = came[-1] if came else after_seq
            client.leave(reset=True)

    def drop(self) -> None:
        if self._client:
            self._client.leave(reset=True)


def seqs(received: bytes) -> list[int]:
    return [int(line[4:]) for line in received.split(b"\n") if line.startswith(b"id: ")]
