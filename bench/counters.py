"""What a machine does not make faster or slower: calls, statements, bytes and steps, of each hot path under a small load.

Postgres is the pinned one, so that two machines count the same; nothing is durable, nothing is vacuumed, and no page is
written whole into the log, so that two runs do. What is done at the same time is only what belongs together.
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import astuple, dataclass
from random import Random
from statistics import median
from uuid import UUID

import asyncpg
import baseline
import uvloop
from append import EVENT_BYTES, Shape, body_of, write_floor
from baseline import Counted
from clocks import pss_bytes
from crowd import Crowd
from fan_out import SETTINGS, Source
from http_load import Client, post
from observed import Act, Observed, Tools, observed
from reach import connect
from stored import store
from world import TOPIC, World

from juinie_shared.contracts.names import OUTBOX_CHANNEL
from juinie_shared.domain.ids import RunId
from juinie_testkit.raw_stream import stream_request

REQUIRE = "JUINIE_REQUIRE_COUNTERS"
RUNS = 200
APPENDS, LARGE_APPENDS = 200, 100
TOGETHER, TURNS = 64, 5
ROWS = {1: 6_000, 10: 2_000}
"""Of the outbox, by the events in each."""
IDLE, WATCHERS, EVENTS, TICKS, RETURNS = 2_000, 200, 60, 20, 100
_ALONE_SECONDS, _LOOK_SECONDS, _WAIT_SECONDS = 0.005, 0.005, 60
FRESH, WARM = 2, 20
"""Events of a run that is new, which come from Postgres, and of one from which on all come from Kafka."""
STORED = 50
"""Events that one who comes reads."""
_FIRST_MS = 1_767_225_600_000
IN_PYTHON = ("python_steps", "allocations", "allocated_bytes")
CALLS = ("read_calls", "write_calls", "polls", "system_calls")

type Counts = dict[str, Counted]


async def count(tools: Tools) -> Counts:
    """All counters, by name: path, load, what is counted. What cannot be counted here is not among them, and `tools` says why."""
    os.environ["JUINIE_EMBEDDED_POSTGRES"] = "wheel"
    async with World(with_kafka=True, durable=False, traced=False) as world:
        tools.compile(world.directory)
        await _still(world)
        runs = await world.runs(RUNS, _ids(RUNS, 1))
        return {
            **await _appends(world, tools, runs),
            **await _relay(world, tools, runs),
            **await _streams(world, tools),
        }


async def _still(world: World) -> None:
    async with world.pool.connection() as connection:
        await connection.execute("ALTER SYSTEM SET autovacuum = off")
        await connection.execute("SELECT pg_reload_conf()")


def _ids(count: int, seed: int) -> list[RunId]:
    """As UUIDs of version 7 are, and the same each time: in which shards and partitions runs lie decides what comes together."""
    chance = Random(seed)
    return [
        RunId(
            UUID(
                int=_FIRST_MS + number << 80
                | 7 << 76
                | chance.getrandbits(12) << 64
                | 2 << 62
                | chance.getrandbits(62)
            )
        )
        for number in range(count)
    ]


def _each(path: str, counts: Mapping[str, float], units: float, unit: str, *wanted: str) -> Counts:
    """Those of these counts that are wanted and could be counted, per unit."""
    return {f"{path} {what}": Counted(counts[what] / units, unit) for what in wanted if what in counts}


# ---- append ------------------------------------------------------------------------------------------------------------


async def _appends(world: World, tools: Tools, runs: Sequence[UUID]) -> Counts:
    """One after the other, of one event and of many; then together."""
    before = await _row_changes(world)
    async with observed(world, tools, "juinie_api", "JUINIE_API_PORT") as api:
        await _append(world, api, runs, Shape(1, RUNS))
        counts = {
            **await _appended(world, api, runs, Shape(1, APPENDS)),
            **await _appended(world, api, runs, Shape(20, LARGE_APPENDS)),
        }
        commits = await _together(world, api, runs)
    changed = await _row_changes(world) - before
    return counts | {
        "append together commits": Counted(commits / TOGETHER, f"an append, {TOGETHER} at once"),
        "append dead_rows": Counted(changed.dead / changed.queued, "an append"),
        "append updates_not_hot": Counted(1 - changed.hot / changed.updates, "share of the updates of run"),
    }


async def _appended(world: World, api: Observed, runs: Sequence[UUID], shape: Shape) -> Counts:
    did = await api.counted(
        lambda: nullcontext(lambda: _append(world, api, runs, shape)), {"wal_bytes": world.wal_bytes}
    )
    wanted = ("round_trips", "blocks_kept", "wal_bytes", *IN_PYTHON, *CALLS)
    return _each(f"append {shape.events}", did, shape.events * shape.appends, "an event", *wanted)


async def _append(world: World, api: Observed, runs: Sequence[UUID], shape: Shape) -> None:
    """Each is alone: the publisher is woken for it before the next one comes."""
    client = await connect(Client, api.service.port)
    requests = _requests(world, runs, shape)
    for number in range(shape.appends):
        await client.send(requests[number % len(requests)])
        await asyncio.sleep(_ALONE_SECONDS)
    client.close()


def _requests(world: World, runs: Sequence[UUID], shape: Shape) -> list[bytes]:
    body = body_of(shape)
    return [post(f"/v1/runs/{run}/events", world.key.text, body) for run in runs]


async def _together(world: World, api: Observed, runs: Sequence[UUID]) -> float:
    """Commits, of appends that all lie there when the api looks: it is frozen until they do."""
    requests = _requests(world, runs[:TOGETHER], Shape(1, 1))
    clients = [await connect(Client, api.service.port) for _ in requests]
    commits = list[int]()
    for _ in range(1 + TURNS):
        before = api.statements.times("WITH wanted")
        await api.freeze()
        answers = [client.send(request) for client, request in zip(clients, requests, strict=True)]
        await asyncio.sleep(_LOOK_SECONDS)  # until all is in its sockets
        api.service.thaw()
        await asyncio.gather(*answers)
        commits.append(api.statements.times("WITH wanted") - before)
    for client in clients:
        client.close()
    return median(commits[1:])


@dataclass(frozen=True, slots=True)
class _Changes:
    """Rows that died; updates of `run`, and those of them that were HOT; rows that came into the outbox."""

    dead: int
    updates: int
    hot: int
    queued: int

    def __sub__(self, before: "_Changes") -> "_Changes":
        return _Changes(*map(int.__sub__, astuple(self), astuple(before)))


async def _row_changes(world: World) -> _Changes:
    """So far, by sessions that are over. Who has which duty is written by the clock, whatever there is to do."""
    async with world.pool.connection() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
        row = await connection.fetchrow("""
            SELECT sum(n_tup_upd + n_tup_del)::int AS dead,
                   sum(n_tup_upd) FILTER (WHERE relname = 'run')::int AS updates,
                   sum(n_tup_hot_upd) FILTER (WHERE relname = 'run')::int AS hot,
                   sum(n_tup_ins) FILTER (WHERE relname = 'outbox')::int AS queued
            FROM pg_stat_user_tables WHERE relname NOT IN ('duty', 'publisher')
        """)
        assert row is not None
        return _Changes(row["dead"], row["updates"], row["hot"], row["queued"])


# ---- relay -------------------------------------------------------------------------------------------------------------


async def _relay(world: World, tools: Tools, runs: Sequence[UUID]) -> Counts:
    """An outbox that is filled at one moment, by appends of one event and of ten."""
    async with world.pool.connection() as connection:
        await connection.execute("TRUNCATE outbox")
    before = await _row_changes(world)
    async with observed(world, tools, "juinie_publisher", "JUINIE_PUBLISHER_PORT") as publisher:
        async with _filled(world, runs, 1) as relay:
            await relay()
        counts = await _relayed(world, publisher, runs, 1) | await _relayed(world, publisher, runs, 10)
    changed = await _row_changes(world) - before
    by_relay = changed.dead - changed.updates  # those of `run` are the filling's
    return counts | {"relay dead_rows": Counted(by_relay / changed.queued, "an outbox row")}


async def _relayed(world: World, publisher: Observed, runs: Sequence[UUID], events: int) -> Counts:
    did = await publisher.counted(
        lambda: _filled(world, runs, events),
        {
            "wal_bytes": world.wal_bytes,
            "kafka_batches": lambda: _kafka_batches(world),
            "statements": lambda: _relay_statements(publisher),
        },
    )
    path, rows = f"relay {events}", ROWS[events]
    return {
        **_each(path, did, rows * events, "an event", "bytes_written", "wal_bytes", *IN_PYTHON),
        **_each(path, did, rows / 1000, "1,000 outbox rows", "statements", "kafka_batches", *CALLS),
    }


@asynccontextmanager
async def _filled(world: World, runs: Sequence[UUID], events: int) -> AsyncGenerator[Act]:
    """Rows that the relay will see at once, and how they are relayed."""
    connection = await asyncpg.connect(world.postgres.url)
    try:
        filling = connection.transaction()
        await filling.start()
        for _ in range(ROWS[events] // len(runs)):
            await write_floor(connection, runs, events, '"' + "x" * (EVENT_BYTES - 2) + '"')

        async def relay() -> None:
            await filling.commit()
            await connection.execute(f"NOTIFY {OUTBOX_CHANNEL}")
            async with asyncio.timeout(_WAIT_SECONDS):
                while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox)"):
                    await asyncio.sleep(_LOOK_SECONDS)

        yield relay
    finally:
        await connection.close()


async def _relay_statements(publisher: Observed) -> int:
    """Of the relay: others have their own pace."""
    return publisher.statements.times("WITH due") + publisher.statements.times("DELETE FROM outbox")


async def _kafka_batches(world: World) -> int:
    """Of records, as they lie in the topic's log (Kafka documentation, 5.3: the length is at the ninth byte of each)."""
    assert world.kafka is not None
    count = 0
    for log in world.kafka.data_dir.rglob(f"{TOPIC}-*/*.log"):
        data, place = log.read_bytes(), 0
        while length := int.from_bytes(data[place + 8 : place + 12]):
            count, place = count + 1, place + 12 + length
    return count


# ---- streams -----------------------------------------------------------------------------------------------------------


async def _streams(world: World, tools: Tools) -> Counts:
    """Who rests, who comes to a page of stored events, one run with many watchers, and many runs with one."""
    fresh = await store(world, RUNS, FRESH, ids=_ids(RUNS, 2))
    stored = await store(world, RUNS, STORED, ids=_ids(RUNS, 3))
    async with observed(world, tools, "juinie_stream_gateway", "JUINIE_STREAM_PORT", SETTINGS) as gateway:
        return {
            **await _at_rest(world, gateway, fresh),
            **await _connected(world, gateway, stored),
            **await _delivered(world, gateway, "one_run", fresh[:1] * WATCHERS, EVENTS),
            **await _delivered(world, gateway, "many_runs", fresh[1:], TICKS),
        }


async def _at_rest(world: World, gateway: Observed, runs: Sequence[RunId]) -> Counts:
    warm = await _come(world, gateway, runs)
    empty = pss_bytes(gateway.pid, "Pss_Anon")
    crowd = await _come(world, gateway, [runs[n % len(runs)] for n in range(IDLE)])
    await crowd.until(FRESH)
    each = (pss_bytes(gateway.pid, "Pss_Anon") - empty) / IDLE
    await crowd.leave()
    await warm.leave()
    return {"watcher pss_kb": Counted(each / 1024, "an idle watcher")}


async def _connected(world: World, gateway: Observed, runs: Sequence[RunId]) -> Counts:
    """One after the other, each to a run of its own. Others are there all the time, so that all of Kafka is read."""
    others = await _come(world, gateway, runs)
    await others.until(STORED)
    did = await gateway.counted(lambda: _coming(world, gateway, runs[:RETURNS]), beyond_rest=True)
    await others.leave()
    return _each("connect", did, RETURNS, "a watcher", "round_trips", "blocks_kept", *IN_PYTHON, *CALLS)


@asynccontextmanager
async def _coming(world: World, gateway: Observed, runs: Sequence[RunId]) -> AsyncGenerator[Act]:
    crowds = list[Crowd]()

    async def come() -> None:
        for run in runs:
            crowds.append(await _come(world, gateway, [run]))
            await crowds[-1].until(STORED)

    yield come
    for crowd in crowds:
        await crowd.leave()


async def _delivered(
    world: World, gateway: Observed, load: str, watched: Sequence[RunId], ticks: int
) -> Counts:
    """An event for each run, when all have had the one before."""
    runs = list(dict.fromkeys(watched))
    crowd = await _come(world, gateway, watched)
    await crowd.until(FRESH)
    async with Source(world, runs) as source:

        async def deliver() -> None:
            for _ in range(ticks):
                await source.send(1, 0, len(runs))
                await crowd.until(source.events_a_run)

        await source.send(WARM, 0, len(runs))
        await crowd.until(WARM)
        did = await gateway.counted(lambda: nullcontext(deliver))
    await crowd.leave()
    calls = [
        call for call in CALLS if call != "read_calls"
    ]  # Kafka's answers come in as many pieces as they like
    return _each(
        f"deliver {load}", did, ticks * len(watched), "a delivery", "bytes_written", *IN_PYTHON, *calls
    )


async def _come(world: World, gateway: Observed, runs: Sequence[RunId], at_once: int = 50) -> Crowd:
    requests = [stream_request(run, world.key.text, 0) for run in runs]
    crowd = Crowd(gateway.service.port, requests)
    await crowd.come(at_once)
    return crowd


# ---- held to what was accepted ------------------------------------------------------------------------------------------


def held(*, renew: bool) -> int:
    """The exit code: 1 where one became worse. `renew` accepts what is counted now. What this machine cannot count is told, and is a
    failure only where JUINIE_REQUIRE_COUNTERS=1 asks for all.
    """
    if sys.platform != "linux":
        print("NOT COUNTED: the counters come from /proc, which only Linux has.")
        return 0
    tools = Tools()
    counted = uvloop.run(count(tools))
    accepted = baseline.read()
    if renew and not tools.missing:
        baseline.write(baseline.renewed(accepted, counted))
    here = {name: one for name, one in accepted.items() if name.rpartition(" ")[2] not in tools.missing}
    verdicts = baseline.compared(here, counted)
    worse = [verdict for verdict in verdicts if verdict.worse]
    if (
        worse and not renew
    ):  # what others do meanwhile cuts answers into more pieces: what is worse is so again
        counted = _less_of(counted, uvloop.run(count(tools)))
        verdicts = baseline.compared(here, counted)
        worse = [verdict for verdict in verdicts if verdict.worse]
    print(baseline.table(verdicts if renew else worse or verdicts))
    for line in tools.lines():
        print(line)
    if renew:
        return _renewed(tools)
    if worse:
        print(
            f"{len(worse)} counters are worse than bench/baseline.json says. Where that is worth it: python bench counters --renew"
        )
    return int(bool(worse or (tools.missing and os.environ.get(REQUIRE) == "1")))


def _less_of(once: Counts, again: Counts) -> Counts:
    return {
        name: min(one, again.get(name, one), key=lambda counted: counted.value) for name, one in once.items()
    }


def _renewed(tools: Tools) -> int:
    if tools.missing:
        print("Nothing is renewed: that is for a machine that can count them all.")
    return int(bool(tools.missing))
