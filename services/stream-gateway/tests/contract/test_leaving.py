"""Ten thousand that come and leave, at every moment of a stream's life: nothing of them stays behind."""

import asyncio
import gc
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import structlog

from juinie_stream_gateway.core.hub import Room
from juinie_stream_gateway.core.watcher import Watcher
from juinie_stream_gateway.edges.connection import HttpConnection
from juinie_stream_gateway.edges.open_stream import OpenStream
from juinie_stream_gateway.edges.outlet import ResponseOutlet
from juinie_testkit.raw_stream import RawStream, connect_raw, stream_request
from juinie_testkit.running import RunningService
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import StillMissing, eventually

WARM_UP = 400
COMERS = 500
AT_ONCE = 50
SPARE = 2
"""A probe's own request, and a pooled database connection that came or went."""
MANY = 10_000
"""The database's pool fills while the first crowd comes."""
MOST_GROWTH_BYTES = 8 * 1024 * 1024
"""Of the process, from one crowd to the next. Five hundred kept streams would be about as much."""
KEPT_BY_A_STREAM = (Room, Watcher, ResponseOutlet, HttpConnection, OpenStream)


@dataclass(frozen=True)
class Where:
    """What there is to come to."""

    port: int
    key: str
    short_run: UUID
    long_run: UUID

    async def ask(self, run_id: UUID, receive_buffer: int | None = None) -> RawStream:
        client = await connect_raw(self.port, receive_buffer)
        await client.send(stream_request(run_id, self.key))
        return client


async def says_nothing(where: Where) -> RawStream:
    return await connect_raw(where.port)


async def says_half_a_head(where: Where) -> RawStream:
    client = await connect_raw(where.port)
    await client.send(b"GET /v1/runs/x/stream HTTP/1.1\r\nHost: ")
    return client


async def does_not_wait_for_an_answer(where: Where) -> RawStream:
    return await where.ask(where.short_run)


async def has_seen_the_head(where: Where) -> RawStream:
    client = await where.ask(where.short_run)
    await client.read(100)
    return client


async def is_in_mid_backfill(where: Where) -> RawStream:
    client = await where.ask(where.long_run, receive_buffer=4096)
    await client.read_until(b"run.created")
    return client


async def is_caught_up(where: Where) -> RawStream:
    client = await where.ask(where.short_run)
    await client.read_until(b"stream.caught_up")
    return client


async def has_sent_more_than_it_should(where: Where) -> RawStream:
    """A second request behind a stream makes the server stop reading: it must notice all the same who leaves."""
    client = await where.ask(where.short_run)
    await client.send(stream_request(where.short_run, where.key))
    await client.read_until(b"stream.caught_up")
    return client


async def asks_for_what_is_not_there(where: Where) -> RawStream:
    return await where.ask(UUID(int=7))


type Come = Callable[[Where], Awaitable[RawStream]]

KINDS: list[tuple[Come, bool]] = [
    (says_nothing, False),
    (says_half_a_head, True),
    (does_not_wait_for_an_answer, True),
    (does_not_wait_for_an_answer, False),
    (has_seen_the_head, True),
    (is_in_mid_backfill, True),
    (is_in_mid_backfill, False),
    (is_caught_up, True),
    (is_caught_up, False),
    (has_sent_more_than_it_should, True),
    (asks_for_what_is_not_there, False),
]


@pytest.fixture(autouse=True)
def quiet() -> Generator[None]:
    """No line a stream: pytest would keep them all, in the memory that is measured here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def where(gateway: RunningService, seed: Seed, key: SeededKey) -> Where:
    await until_metric(gateway.url, 'juinie_stream_mode{mode="live"}', 1)
    long_run = await seed.run(key)
    await seed.append(long_run, *[("text", "x" * 40_000) for _ in range(50)])
    return Where(gateway.port, key.text, await seed.run(key), long_run)


def counts() -> dict[str, int]:
    """Of this process, which is the gateway's too."""
    return {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


def kept() -> dict[str, int]:
    gc.collect()
    return dict(
        Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, KEPT_BY_A_STREAM))
    )


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def come_and_leave(come: Come, where: Where, many: int, reset: bool) -> None:
    for _ in range(many // AT_ONCE):
        clients = await asyncio.gather(*(come(where) for _ in range(AT_ONCE)))
        for client in clients:
            client.leave(reset)


async def nothing_is_left(gateway: RunningService, before: dict[str, int]) -> None:
    def left() -> dict[str, int]:
        more = {name: now - before[name] for name, now in counts().items() if now > before[name] + SPARE}
        return more or kept()

    with suppress(StillMissing):
        await eventually(lambda: not left(), 30, "nothing is left")
    assert left() == {}
    assert await metric(gateway.url, "juinie_streams_open") == 0
    assert await metric(gateway.url, "juinie_stream_unsent_bytes") == 0


@pytest.mark.parametrize(
    ("come", "reset"), KINDS, ids=lambda part: getattr(part, "__name__", f"reset={part}")
)
async def test_who_comes_and_leaves_leaves_nothing_behind(
    come: Come, reset: bool, where: Where, gateway: RunningService
) -> None:
    before = {**counts(), "descriptors": MANY}
    await come_and_leave(come, where, WARM_UP, reset)
    await nothing_is_left(gateway, before)
    before, resident_before = counts(), resident_bytes()
    await come_and_leave(come, where, COMERS, reset)
    await nothing_is_left(gateway, before)
    assert resident_bytes() - resident_before <= MOST_GROWTH_BYTES


async def test_who_leaves_at_the_splice_leaves_nothing_behind(
    where: Where, gateway: RunningService, topic, seed: Seed
) -> None:
    """They leave while the run's events come, between what is stored and what is live."""
    before = {**counts(), "descriptors": MANY}
    await come_and_leave(is_caught_up, where, WARM_UP, reset=True)
    await nothing_is_left(gateway, before)
    before = counts()
    for _ in range(COMERS // AT_ONCE):
        coming = asyncio.gather(*(is_caught_up(where) for _ in range(AT_ONCE)))
        first, last = await seed.append(where.short_run, ("text", 1), ("text", 2))
        await topic.publish(where.short_run, first, last)
        for number, client in enumerate(await coming):
            client.leave(reset=number % 2 == 0)
    await nothing_is_left(gateway, before)
