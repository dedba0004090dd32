"""Storms: what they cost, how long they last, and what those feel of them who do nothing but watch and append.

The watchers that come and go are a process of their own, which runs only where nobody else would: they have machines of their own in
truth. What the others feel is compared with what they felt just before. The first storm of each case comes twice (`again`): how far the two are
apart is the noise.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
from append import Shape, body_of
from clocks import cpu_seconds, family, pss_bytes
from crowd import Crowd
from fan_out import Latencies
from http_load import post, send_all
from rounds import Measured, Sample, Side, by_turns, quantile
from stored import store
from world import World

from juinie_shared.contracts.record import event_json_head
from juinie_shared.contracts.sse import event_frame
from juinie_shared.db.pool import Pool, PoolLimits, open_pool
from juinie_shared.domain.ids import RunId, Seq
from juinie_shared.domain.times import format_time
from juinie_stream_gateway.core.backfill import Backfill
from juinie_stream_gateway.core.hub import Room
from juinie_stream_gateway.store import Page, Store
from juinie_testkit.raw_stream import connect_raw, stream_request
from juinie_testkit.stack import ServiceProcess

LIMITS = {
    "JUINIE_MAX_STREAMS": "30000",
    "JUINIE_MAX_CONNECTIONS": "30000",
    "JUINIE_TAIL_CHECK_SECONDS": "0.75",
}
EVENTS, MISSING = 200, 50
FEW_RUNS = 50
LIVE_RUNS, LIVE_WATCHERS = 10, 5
APPEND_EVERY_SECONDS = 0.02
CALM_SECONDS = 5.0
CROWD_EVENTS_A_SECOND, RUNS_EVENTS_A_SECOND = 2, 200
LONG_RUN_EVENTS = 1_000_000
READERS_AT_ONCE = 8
_LOOK_SECONDS = 0.05

type Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    rounds: int
    watchers: int
    long_run_events: int


# ---- those who only watch and append ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Felt:
    """Seconds of each append, from each event to a watcher, and of CPU by part, in so many seconds."""

    seconds: float
    appends: Sequence[float]
    deliveries: Sequence[float]
    cpu: Mapping[str, float]


class Stack:
    """The whole of Juinie, with a few runs that are watched and appended to at a steady pace."""

    def __init__(
        self, world: World, api: ServiceProcess, gateway: ServiceProcess, runs: Sequence[RunId]
    ) -> None:
        self.world, self.gateway = world, gateway
        self._api, self._runs, self._next = api, runs, 0
        self._deliveries = Latencies()
        requests = [stream_request(run, world.key.text, 2) for run in runs for _ in range(LIVE_WATCHERS)]
        self._crowd = Crowd(gateway.port, requests, self._deliveries.note, every=1)

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncGenerator["Stack"]:
        async with World(with_kafka=True) as world:
            runs = await store(world, LIVE_RUNS, 2)
            api = await world.service("juinie_api", "JUINIE_API_PORT")
            await world.service("juinie_publisher", "JUINIE_PUBLISHER_PORT")
            gateway = await world.service("juinie_stream_gateway", "JUINIE_STREAM_PORT", LIMITS)
            stack = cls(world, api, gateway, runs)
            await stack._crowd.come()
            await stack.feel(asyncio.sleep(2))
            yield stack
            await stack._crowd.leave()

    async def feel(self, until: Awaitable[object]) -> Felt:
        """What it is like until something else is over."""
        doing = asyncio.ensure_future(until)
        self._deliveries.take()
        appends = list[float]()
        cpu, began = self._cpu(), time.perf_counter()
        while not doing.done():
            at = time.perf_counter()
            appends += await self.append(self._runs, 1)
            await asyncio.sleep(max(0.0, at + APPEND_EVERY_SECONDS - time.perf_counter()))
        await doing
        used = {part: seconds - cpu[part] for part, seconds in self._cpu().items()}
        return Felt(time.perf_counter() - began, appends, self._deliveries.take(), used)

    async def append(self, runs: Sequence[RunId], events: int) -> Sequence[float]:
        """One event to each of so many of these runs, the next ones each time. Gives how long each took."""
        self._next += events
        key, body = self.world.key.text, body_of(Shape(1, 1))
        chosen = [runs[(self._next + n) % len(runs)] for n in range(events)]
        requests = [post(f"/v1/runs/{run}/events", key, body) for run in chosen]
        return (await send_all(self._api.port, lambda n: requests[n], events, 8)).latencies

    def _cpu(self) -> dict[str, float]:
        return {
            "gateway": cpu_seconds(family(self.gateway.pid or 0)),
            "postgres": self.world.database_cpu(),
        }


class Feelings:
    """What was felt in the calm and in the storm, by turns."""

    def __init__(self) -> None:
        self._turns = dict[str, list[tuple[Felt, Felt]]]()

    def add(self, storm: str, calm: Felt, felt: Felt) -> None:
        self._turns.setdefault(storm, []).append((calm, felt))

    def facts(self) -> dict[str, float]:
        """In the median of the turns: milliseconds in the storm, and how many times those of the calm."""
        facts = dict[str, float]()
        for storm, turns in self._turns.items():
            for what, of in (("append", "appends"), ("delivery", "deliveries")):
                for name, share in (("p50", 0.5), ("p99", 0.99)):
                    pairs = [
                        (quantile(getattr(calm, of), share), quantile(getattr(felt, of), share))
                        for calm, felt in turns
                    ]
                    facts[f"{storm}: {what} {name} ms"] = median(felt for _, felt in pairs) * 1e3
                    facts[f"{storm}: {what} {name} ratio"] = median(felt / calm for calm, felt in pairs)
        return facts


# ---- those who come and go ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Came:
    """`seconds` until all had what they missed; `sent_away`: how often one was told to come later, by reason."""

    seconds: float
    sent_away: Mapping[str, int]


class Returning:
    """The process of `returning.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def to(
        cls, stack: Stack, runs: Sequence[RunId], watchers: int, after_seq: int, last_seq: int
    ) -> AsyncGenerator["Returning"]:
        arguments = [stack.gateway.port, stack.world.key.text, after_seq, last_seq, watchers]
        process = await asyncio.create_subprocess_exec(
            sys.executable, Path(__file__).parent / "returning.py", *map(str, arguments),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdin
            process.stdin.write(" ".join(map(str, runs)).encode() + b"\n")
            yield cls(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def come(self) -> Came:
        """All at once."""
        return Came(**await self._do("come"))

    async def leave(self) -> None:
        await self._do("leave")

    async def _do(self, word: str) -> Mapping[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{word}\n".encode())
        line = await self._process.stdout.readline()
        assert line, "The returning watchers have ended."
        return json.loads(line)


# ---- storms ------------------------------------------------------------------------------------------------------------


async def reconnects(wanted: Wanted, told: Told) -> Measured:
    """All come at once, `MISSING` events behind: to a few runs that others watched all the time, so that the gateway has the events
    still; to a few that nobody watches; and each to a run of its own. CPU is without what the calm takes.
    """
    feelings, facts, after = Feelings(), dict[str, list[float]](), EVENTS - MISSING
    async with Stack.open() as stack, _watched(stack, after) as tail:
        few = await store(stack.world, FEW_RUNS, EVENTS)
        apart = await store(stack.world, wanted.watchers, EVENTS)

        def side(name: str, crowd: Returning) -> Side:
            async def turn() -> Sample:
                calm = await stack.feel(asyncio.sleep(CALM_SECONDS))
                coming = asyncio.ensure_future(crowd.come())
                felt = await stack.feel(coming)
                came = coming.result()
                await crowd.leave()
                await asyncio.sleep(1)
                feelings.add(name, calm, felt)
                facts.setdefault(f"{name}: seconds", []).append(came.seconds)
                told(
                    f"{name}: {came.seconds:.1f} s until all had what they missed; sent away: {came.sent_away}"
                )
                facts.setdefault(f"{name}: sent away", []).append(sum(came.sent_away.values()))
                cpu = {
                    part: max(0.0, used - calm.cpu[part] / calm.seconds * felt.seconds)
                    for part, used in felt.cpu.items()
                }
                return Sample(wanted.watchers, felt.seconds, cpu, felt.deliveries)

            return Side(name, turn)

        async with (
            Returning.to(stack, tail, wanted.watchers, after, EVENTS) as to_tail,
            Returning.to(stack, few, wanted.watchers, after, EVENTS) as to_few,
            Returning.to(stack, apart, wanted.watchers, after, EVENTS) as to_apart,
        ):
            sides = [
                side("watched runs", to_tail),
                side("few runs", to_few),
                side("apart", to_apart),
                side("again", to_tail),
            ]
            measured = await by_turns("reconnect", sides, wanted.rounds, told)
    medians = {name: median(values) for name, values in facts.items()}
    return replace(measured, facts={**medians, **feelings.facts()})


@asynccontextmanager
async def _watched(stack: Stack, after: int) -> AsyncGenerator[Sequence[RunId]]:
    """Runs that each have a watcher, who got their last `MISSING` events live."""
    runs = await store(stack.world, FEW_RUNS, after)
    crowd = Crowd(stack.gateway.port, [stream_request(run, stack.world.key.text, after - 1) for run in runs])
    await crowd.come()
    await crowd.until(after)
    for _ in range(MISSING):
        await stack.append(runs, FEW_RUNS)
    await crowd.until(EVENTS)
    yield runs
    await crowd.leave()


async def crowds(wanted: Wanted, told: Told) -> Measured:
    """One run with all the watchers, and as many runs with one each, all of them live: what others feel of it."""
    feelings = Feelings()
    async with Stack.open() as stack:
        one = await store(stack.world, 1, 2)
        many = await store(stack.world, wanted.watchers, 2)
        sides = [
            _held(stack, "one run", one, CROWD_EVENTS_A_SECOND, wanted.watchers, feelings),
            _held(stack, "many runs", many, RUNS_EVENTS_A_SECOND, wanted.watchers, feelings),
            _held(stack, "again", one, CROWD_EVENTS_A_SECOND, wanted.watchers, feelings),
        ]
        measured = await by_turns("second", sides, wanted.rounds, told)
    return replace(measured, facts=feelings.facts())


def _held(
    stack: Stack, name: str, runs: Sequence[RunId], events_a_second: int, watchers: int, feelings: Feelings
) -> Side:
    """They come, and then get so many events a second in all."""

    async def appended() -> None:
        at_once = max(1, events_a_second // 10)
        until = time.perf_counter() + CALM_SECONDS
        while time.perf_counter() < until:
            began = time.perf_counter()
            await stack.append(runs, at_once)
            await asyncio.sleep(max(0.0, began + at_once / events_a_second - time.perf_counter()))

    async def turn() -> Sample:
        calm = await stack.feel(asyncio.sleep(CALM_SECONDS))
        async with Returning.to(stack, runs, watchers, 0, 2) as crowd:
            await crowd.come()
            await asyncio.sleep(1)
            felt = await stack.feel(appended())
            await crowd.leave()
        await asyncio.sleep(1)
        feelings.add(name, calm, felt)
        return Sample(round(felt.seconds), felt.seconds, felt.cpu, felt.deliveries)

    return Side(name, turn)


# ---- reads -------------------------------------------------------------------------------------------------------------

_ROWS = """
    SELECT seq, type, data, occurred_at FROM run_event WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT 500
"""


async def reads(wanted: Wanted, told: Told) -> Measured:
    """Only what a storm reads: the pages of all who come, as the gateway does, against a query for each of them."""
    async with World() as world:
        few = await store(world, FEW_RUNS, EVENTS)
        apart = await store(world, wanted.watchers, EVENTS)
        pool = await open_pool(world.postgres.url, "reads", PoolLimits(size=READERS_AT_ONCE))
        rows = await asyncpg.create_pool(
            world.postgres.url, min_size=READERS_AT_ONCE, max_size=READERS_AT_ONCE
        )
        asked = [few[number % FEW_RUNS] for number in range(wanted.watchers)]
        try:
            sides = [
                Side("few runs", _reading(world, asked, _together(world, pool, few))),
                Side("apart", _reading(world, apart, _together(world, pool, apart))),
                Side("a query each", _reading(world, apart, _alone(pool))),
                Side("rows each", _reading(world, apart, _rows(rows))),
                Side("again", _reading(world, asked, _together(world, pool, few))),
            ]
            return await by_turns("client", sides, wanted.rounds, told)
        finally:
            await rows.close()
            await pool.close()


type _Read = Callable[[RunId], Awaitable[object]]


def _reading(
    world: World, runs: Sequence[RunId], make: Callable[[], _Read]
) -> Callable[[], Awaitable[Sample]]:
    async def turn() -> Sample:
        read = make()
        gc.collect()
        gc.disable()  # the gateway's collector is tamed, and here nothing else lives
        own, database, began = time.process_time(), world.database_cpu(), time.perf_counter()
        await asyncio.gather(*map(read, runs))
        cpu = {"service": time.process_time() - own, "postgres": world.database_cpu() - database}
        gc.enable()
        return Sample(len(runs), time.perf_counter() - began, cpu)

    return turn


def _together(world: World, pool: Pool, runs: Sequence[RunId]) -> Callable[[], _Read]:
    """As the gateway reads: a page that is on its way is waited for, and pages that are asked for meanwhile are read at once."""

    def make() -> _Read:
        backfill = Backfill(Store(pool, wait_seconds=120).read_page)
        rooms = {run: Room(run, world.key.tenant_id) for run in runs}
        return lambda run: backfill.page(rooms[run], Seq(EVENTS - MISSING))

    return make


def _alone(pool: Pool) -> Callable[[], _Read]:
    """The same statement and the same frames, for each client its own."""

    def make() -> _Read:
        free = asyncio.Semaphore(READERS_AT_ONCE)

        async def read(run: RunId) -> Page | None:
            async with free:
                return await Store(pool).read_page(run, Seq(EVENTS - MISSING))

        return read

    return make


def _rows(pool: asyncpg.Pool) -> Callable[[], _Read]:
    """As most would write it first: rows, and frames made of them here."""

    async def read(run: RunId) -> list[bytes]:
        rows = await pool.fetch(_ROWS, run, EVENTS - MISSING)
        frames = list[bytes]()
        for seq, event_type, data, occurred_at in rows:
            value = event_json_head(seq, event_type) + format_time(occurred_at).encode()
            frames.append(event_frame(seq, value + b'","data":' + data.encode() + b"}"))
        return frames

    return lambda: read


# ---- a long run --------------------------------------------------------------------------------------------------------


async def long_run(wanted: Wanted, told: Told) -> Measured:
    """One run is read from its start to its last event: how much the gateway grows, and when the first event comes."""
    facts = dict[str, list[float]]()
    last = f"\nid: {wanted.long_run_events}\n".encode()
    async with World(with_kafka=True) as world:
        (run,) = await store(world, 1, wanted.long_run_events)
        gateway = await world.service("juinie_stream_gateway", "JUINIE_STREAM_PORT", LIMITS)
        pid = gateway.pid or 0

        async def read() -> None:
            began = time.perf_counter()
            stream = await connect_raw(gateway.port)
            await stream.send(stream_request(run, world.key.text, 0))
            await stream.read_until(b"\nid: 1\n")
            facts.setdefault("first event ms", []).append((time.perf_counter() - began) * 1e3)
            while last not in stream.received:
                stream.received = stream.received[-100:]
                assert await stream.read(1 << 20), "The stream has ended."
            stream.leave(reset=True)

        async def turn() -> Sample:
            before, cpu, database = pss_bytes(pid), cpu_seconds(family(pid)), world.database_cpu()
            began, reading, peak = time.perf_counter(), asyncio.ensure_future(read()), 0
            while not reading.done():
                peak = max(peak, pss_bytes(pid))
                await asyncio.wait([reading], timeout=_LOOK_SECONDS)
            await reading
            facts.setdefault("peak of PSS, more bytes than before", []).append(peak - before)
            used = {"gateway": cpu_seconds(family(pid)) - cpu, "postgres": world.database_cpu() - database}
            return Sample(wanted.long_run_events, time.perf_counter() - began, used)

        measured = await by_turns("event", [Side("from the start", turn)], wanted.rounds, told)
    return replace(measured, facts={name: max(values) for name, values in facts.items()})


CASES: Mapping[str, Callable[[Wanted, Told], Coroutine[Any, Any, Measured]]] = {
    "reconnects": reconnects,
    "reads": reads,
    "crowds": crowds,
    "long-run": long_run,
}
