"""What a machine does not make faster or slower: calls, statements, bytes and steps, of each hot path under a small load.

Postgres is the pinned one, so that two machines count the same; nothing is durable, nothing is vacuumed, and no page is
written whole into the log, so that two runs do. What is done at the same time is only what belongs together.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import baseline
import uvloop
from append import EVENT_BYTES, Shape, body_of, write_floor
from baseline import Counted
from clocks import calls, pss_bytes
from crowd import Crowd
from fan_out import SETTINGS, Source
from http_load import post, send_all
from statements import Statements
from stored import store
from world import TOPIC, World

from juinie_shared.contracts.names import OUTBOX_CHANNEL
from juinie_shared.domain.ids import RunId
from juinie_testkit.raw_stream import stream_request
from juinie_testkit.stack import ServiceProcess

RUNS = 200
APPENDS, LARGE_APPENDS, TOGETHER = 300, 100, 640
ROWS = 2_000
IDLE, WATCHERS, EVENTS, TICKS, RETURNS = 2_000, 200, 60, 20, 100
_LOOK_SECONDS, _WAIT_SECONDS = 0.005, 60
_CALM_SECONDS, _REST_SECONDS = 0.3, 2.0
FRESH, WARM = 2, 20
"""Events of a run that is new, which come from Postgres, and of one from which on all come from Kafka."""
STORED = 50
"""Events that one who comes reads."""

type Counts = dict[str, Counted]


async def count() -> Counts:
    """All counters, by name: path, load, what is counted."""
    os.environ["JUINIE_EMBEDDED_POSTGRES"] = "wheel"
    async with World(with_kafka=True, durable=False) as world:
        await _still(world)
        runs = await world.runs(RUNS)
        return {
            **await _appends(world, runs),
            **await _relay(world, runs),
            **await _streams(world),
        }


async def _still(world: World) -> None:
    async with world.pool.connection() as connection:
        await connection.execute("ALTER SYSTEM SET autovacuum = off")
        await connection.execute("SELECT pg_reload_conf()")


class _Observed:
    """A service whose statements, calls and steps are counted."""

    def __init__(self, service: ServiceProcess, statements: Statements, told: Path) -> None:
        self.service, self.statements, self._told = service, statements, told
        self._serial = 0

    @property
    def pid(self) -> int:
        assert self.service.pid is not None
        return self.service.pid

    async def beyond_rest(self, act: Callable[[], Awaitable[object]]) -> Mapping[str, float]:
        """What `act` made it do, without what it does in as much time anyway. What it keeps does not grow with time: a little
        that was let go of while it rested would weigh the more, the longer `act` takes on a busy machine."""
        rest = await self.during(lambda: asyncio.sleep(_REST_SECONDS))
        began = time.perf_counter()
        did = await self.during(act)
        times = (time.perf_counter() - began) / (_REST_SECONDS + _CALM_SECONDS)
        return {
            what: count if what == "blocks_kept" else count - rest[what] * times
            for what, count in did.items()
        }

    async def during(self, act: Callable[[], Awaitable[object]]) -> Mapping[str, float]:
        """What `act` made it do."""
        await asyncio.sleep(_CALM_SECONDS)
        await self._signal(signal.SIGUSR1)
        before, round_trips = calls(self.pid), self.statements.round_trips
        await act()
        did = calls(self.pid) - before
        asked = self.statements.round_trips - round_trips
        counted = await self._signal(signal.SIGUSR2)
        return {
            "round_trips": asked,
            "write_calls": did.writes,
            "bytes_written": did.bytes_written,
            "python_steps": counted["steps"],
            "blocks_kept": counted["blocks"],
        }

    async def _signal(self, number: signal.Signals) -> Mapping[str, int]:
        self._serial += 1
        os.kill(self.pid, number)
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                if self._told.exists():
                    told: Mapping[str, int] = json.loads(self._told.read_text())
                    if told["serial"] == self._serial:
                        return told
                await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def _observed(
    world: World, module: str, port_setting: str, settings: Mapping[str, str] | None = None
) -> AsyncGenerator[_Observed]:
    told = world.directory / f"{module}.json"
    async with Statements(world.postgres.url) as statements:
        counted = {"COUNTED_MODULE": module, "COUNTED_FILE": str(told), "DATABASE_URL": statements.url}
        service = await world.service("counted", port_setting, {**counted, **(settings or {})})
        yield _Observed(service, statements, told)
        await service.stop()


def _each(path: str, counts: Mapping[str, float], units: float, unit: str, *wanted: str) -> Counts:
    """Those of these counts that are wanted, per unit."""
    return {f"{path} {what}": Counted(counts[what] / units, unit) for what in wanted}


# ---- append ------------------------------------------------------------------------------------------------------------


async def _appends(world: World, runs: Sequence[UUID]) -> Counts:
    """One after the other, of one event and of many; then together."""
    rows = await _row_changes(world)
    async with _observed(world, "juinie_api", "JUINIE_API_PORT") as api:
        single, many = Shape(1, APPENDS), Shape(20, LARGE_APPENDS)
        await _append(world, api, runs, Shape(1, RUNS), 1)
        counts = await _appended(world, api, runs, single) | await _appended(world, api, runs, many)
        commits = api.statements.times("WITH wanted")
        await _append(world, api, runs, Shape(1, TOGETHER), 64)
        commits = api.statements.times("WITH wanted") - commits
    after = await _row_changes(world)
    appends = RUNS + APPENDS + LARGE_APPENDS + TOGETHER
    dead, updates, hot = (now - then for now, then in zip(after, rows, strict=True))
    return counts | {
        "append together commits": Counted(commits / TOGETHER, "an append, 64 at once"),
        "append dead_rows": Counted(dead / appends, "an append"),
        "append updates_not_hot": Counted(1 - hot / updates, "share of the updates of run"),
    }


async def _appended(world: World, api: _Observed, runs: Sequence[UUID], shape: Shape) -> Counts:
    wal = await world.wal_bytes()
    did = await api.during(lambda: _append(world, api, runs, shape, 1))
    events = shape.events * shape.appends
    did = {**did, "wal_bytes": await world.wal_bytes() - wal}
    wanted = ("round_trips", "write_calls", "python_steps", "blocks_kept", "wal_bytes")
    return _each(f"append {shape.events}", did, events, "an event", *wanted)


async def _append(world: World, api: _Observed, runs: Sequence[UUID], shape: Shape, at_once: int) -> None:
    body = body_of(shape)
    requests = [post(f"/v1/runs/{run}/events", world.key.text, body) for run in runs]
    await send_all(api.service.port, lambda n: requests[n % len(requests)], shape.appends, at_once)


async def _row_changes(world: World) -> tuple[int, int, int]:
    """Rows that died in the tables of an append; updates of `run`; those of them that were HOT. Of sessions that are over."""
    async with world.pool.connection() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
        row = await connection.fetchrow("""
            SELECT sum(n_tup_upd + n_tup_del)::int AS dead,
                   sum(n_tup_upd) FILTER (WHERE relname = 'run')::int AS updates,
                   sum(n_tup_hot_upd) FILTER (WHERE relname = 'run')::int AS hot
            FROM pg_stat_user_tables WHERE relname IN ('run', 'run_event', 'outbox', 'append_key')
        """)
        assert row is not None
        return row["dead"], row["updates"], row["hot"]


# ---- relay -------------------------------------------------------------------------------------------------------------


async def _relay(world: World, runs: Sequence[UUID]) -> Counts:
    """An outbox that is filled at one moment, by appends of one event and of ten."""
    async with world.pool.connection() as connection:
        await connection.execute("TRUNCATE outbox")
    async with _observed(world, "juinie_publisher", "JUINIE_PUBLISHER_PORT") as publisher:
        await _relayed(world, publisher, runs, 1)
        return await _relayed(world, publisher, runs, 1) | await _relayed(world, publisher, runs, 10)


async def _relayed(world: World, publisher: _Observed, runs: Sequence[UUID], events: int) -> Counts:
    connection = await asyncpg.connect(world.postgres.url)
    try:
        filling = connection.transaction()
        await filling.start()
        for _ in range(ROWS // len(runs)):
            await write_floor(connection, runs, events, '"' + "x" * (EVENT_BYTES - 2) + '"')
        wal, batches = await world.wal_bytes(), _kafka_batches(world)
        statements = _relay_statements(publisher)

        async def relay() -> None:
            await filling.commit()
            await connection.execute(f"NOTIFY {OUTBOX_CHANNEL}")
            async with asyncio.timeout(_WAIT_SECONDS):
                while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox)"):
                    await asyncio.sleep(_LOOK_SECONDS)

        did = await publisher.during(relay)
        did = {
            **did,
            "wal_bytes": await world.wal_bytes() - wal,
            "kafka_batches": _kafka_batches(world) - batches,
            "statements": _relay_statements(publisher) - statements,
        }
    finally:
        await connection.close()
    path, rows = f"relay {events}", ROWS / 1000
    return {
        **_each(path, did, ROWS * events, "an event", "python_steps", "bytes_written", "wal_bytes"),
        **_each(path, did, rows, "1,000 outbox rows", "statements", "kafka_batches"),
    }


def _relay_statements(publisher: _Observed) -> int:
    """Of the relay: others have their own pace."""
    return publisher.statements.times("WITH due") + publisher.statements.times("DELETE FROM outbox")


def _kafka_batches(world: World) -> int:
    """Of records, as they lie in the topic's log (Kafka documentation, 5.3: the length is at the ninth byte of each)."""
    assert world.kafka is not None
    count = 0
    for log in world.kafka.data_dir.rglob(f"{TOPIC}-*/*.log"):
        data, place = log.read_bytes(), 0
        while length := int.from_bytes(data[place + 8 : place + 12]):
            count, place = count + 1, place + 12 + length
    return count


# ---- streams -----------------------------------------------------------------------------------------------------------


async def _streams(world: World) -> Counts:
    """Who rests, who comes to a page of stored events, one run with many watchers, and many runs with one."""
    fresh, stored = await store(world, RUNS, FRESH), await store(world, RUNS, STORED)
    async with _observed(world, "juinie_stream_gateway", "JUINIE_STREAM_PORT", SETTINGS) as gateway:
        return {
            **await _at_rest(world, gateway, fresh),
            **await _connected(world, gateway, stored),
            **await _delivered(world, gateway, "one_run", fresh[:1] * WATCHERS, EVENTS),
            **await _delivered(world, gateway, "many_runs", fresh[1:], TICKS),
        }


async def _at_rest(world: World, gateway: _Observed, runs: Sequence[RunId]) -> Counts:
    warm = await _come(world, gateway, runs)
    empty = pss_bytes(gateway.pid)
    crowd = await _come(world, gateway, [runs[n % len(runs)] for n in range(IDLE)])
    await crowd.until(FRESH)
    each = (pss_bytes(gateway.pid) - empty) / IDLE
    await crowd.leave()
    await warm.leave()
    return {"watcher pss_kb": Counted(each / 1024, "an idle watcher")}


async def _connected(world: World, gateway: _Observed, runs: Sequence[RunId]) -> Counts:
    """One after the other, each to a run of its own. Others are there all the time, so that all of Kafka is read."""
    others = await _come(world, gateway, runs)
    await others.until(STORED)
    crowds = list[Crowd]()

    async def come() -> None:
        for run in runs[:RETURNS]:
            crowds.append(await _come(world, gateway, [run]))
            await crowds[-1].until(STORED)

    did = await gateway.beyond_rest(come)
    for crowd in (*crowds, others):
        await crowd.leave()
    wanted = ("round_trips", "write_calls", "python_steps", "blocks_kept")
    return _each("connect", did, RETURNS, "a watcher", *wanted)


async def _delivered(
    world: World, gateway: _Observed, load: str, watched: Sequence[RunId], ticks: int
) -> Counts:
    """An event for each run, when all have had the one before."""
    runs = list(dict.fromkeys(watched))
    crowd = await _come(world, gateway, watched)
    await crowd.until(FRESH)
    async with Source(world, runs) as source:

        async def deliver(ticks: int) -> None:
            for _ in range(ticks):
                await source.send(1, 0, len(runs))
                await crowd.until(source.events_a_run)

        await source.send(WARM, 0, len(runs))
        await crowd.until(WARM)
        did = await gateway.during(lambda: deliver(ticks))
    await crowd.leave()
    wanted = ("write_calls", "bytes_written", "python_steps")
    return _each(f"deliver {load}", did, ticks * len(watched), "a delivery", *wanted)


async def _come(world: World, gateway: _Observed, runs: Sequence[RunId], at_once: int = 50) -> Crowd:
    requests = [stream_request(run, world.key.text, 0) for run in runs]
    crowd = Crowd(gateway.service.port, requests)
    await crowd.come(at_once)
    return crowd


# ---- held to what was accepted ------------------------------------------------------------------------------------------


def held(*, renew: bool) -> int:
    """The exit code: 1 where one became worse. `renew` accepts what is counted now."""
    if sys.platform != "linux":
        print("NOT COUNTED: the counters come from /proc, which only Linux has.")
        return 0
    accepted, counted = baseline.read(), uvloop.run(count())
    if renew:
        baseline.write(baseline.renewed(accepted, counted))
    verdicts = baseline.compared(accepted, counted)
    worse = [verdict for verdict in verdicts if verdict.worse]
    print(baseline.table(verdicts if renew else worse or verdicts))
    if renew or not worse:
        return 0
    print(
        f"{len(worse)} counters are worse than bench/baseline.json says. Where that is worth it: python bench counters --renew"
    )
    return 1
