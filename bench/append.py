"""Appends over HTTP: what one costs the api and Postgres together, against the same endpoint written with SQLModel
sessions, and against the floor: the same rows written by one process in a few large statements.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import asyncpg
from clocks import cpu_seconds, family
from http_load import post, send_all
from rounds import Measured, Sample, Side, by_turns
from world import World

from juinie_shared.domain.ids import shard_of
from juinie_testkit.stack import ServiceProcess

EVENT_BYTES = 200
RUNS = 1000
CONNECTIONS = 64
FLOOR_APPENDS = 50
"""So many appends are in a statement of the floor."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`events` in each of `appends` appends."""

    events: int
    appends: int


def body_of(shape: Shape) -> bytes:
    data = "x" * (EVENT_BYTES - 2)
    event = f'{{"type":"TEXT_MESSAGE_CONTENT","data":"{data}"}}'
    return f'{{"events":[{",".join([event] * shape.events)}]}}'.encode()


async def measure(world: World, shape: Shape, rounds: int, told: Callable[[str], None]) -> Measured:
    """By turns: Juinie, Juinie again, SQLModel sessions, and the floor. A unit is an event."""
    runs = await world.runs(RUNS)
    api = await world.service("juinie_api", "JUINIE_API_PORT")
    peer = await world.service("peers.sqlmodel_api", "PEER_PORT")
    sides = [
        Side("juinie", partial(over_http, world, api, runs, shape)),
        Side("again", partial(over_http, world, api, runs, shape)),
        Side("sqlmodel", partial(over_http, world, peer, runs, shape)),
        Side("floor", partial(_floor, world, runs, shape)),
    ]
    return await by_turns("event", sides, rounds, told)


async def _counted(
    world: World, units: int, own: Callable[[], float], act: Callable[[], Awaitable[Sequence[float]]]
) -> Sample:
    """What `act` used up, in its own process and in Postgres, and how far the log went."""
    await world.quiet()
    wal, database, before, began = await world.wal_bytes(), world.database_cpu(), own(), time.perf_counter()
    latencies = await act()
    seconds = time.perf_counter() - began
    cpu = {"service": own() - before, "postgres": world.database_cpu() - database}
    return Sample(units, seconds, cpu, latencies, {"wal_bytes": await world.wal_bytes() - wal})


async def over_http(world: World, service: ServiceProcess, runs: Sequence[UUID], shape: Shape) -> Sample:
    body, key = body_of(shape), world.key.text
    requests = [post(f"/v1/runs/{run}/events", key, body) for run in runs]
    pids = family(service.pid or 0)

    async def act() -> Sequence[float]:
        done = await send_all(service.port, lambda n: requests[n % len(requests)], shape.appends, CONNECTIONS)
        return done.latencies

    return await _counted(world, shape.appends * shape.events, lambda: cpu_seconds(pids), act)


_ADVANCE = """
    UPDATE run SET last_seq = last_seq + n.events, last_event_at = clock_timestamp()
    FROM unnest($1::uuid[]) WITH ORDINALITY AS w (run_id, place), (SELECT $2::bigint AS events) AS n
    WHERE run.run_id = w.run_id RETURNING run.run_id, run.last_seq
"""


async def _floor(world: World, runs: Sequence[UUID], shape: Shape) -> Sample:
    """COPY of the events and of the outbox rows, and one UPDATE of the runs, a transaction of many appends each."""
    connection = await asyncpg.connect(world.postgres.url)
    data = '"' + "x" * (EVENT_BYTES - 2) + '"'

    async def act() -> Sequence[float]:
        for start in range(0, shape.appends, FLOOR_APPENDS):
            chosen = [runs[n % len(runs)] for n in range(start, min(start + FLOOR_APPENDS, shape.appends))]
            await write_floor(connection, chosen, shape.events, data)
        return ()

    try:
        return await _counted(world, shape.appends * shape.events, time.process_time, act)
    finally:
        await connection.close()


async def write_floor(connection: asyncpg.Connection, runs: Sequence[UUID], events: int, data: str) -> None:
    async with connection.transaction():
        advanced = await connection.fetch(_ADVANCE, runs, events)
        now = datetime.now(UTC)
        rows = [
            (run_id, seq, "TEXT_MESSAGE_CONTENT", data, now)
            for run_id, last in advanced
            for seq in range(last - events + 1, last + 1)
        ]
        await connection.copy_records_to_table(
            "run_event", records=rows, columns=["run_id", "seq", "type", "data", "occurred_at"]
        )
        await connection.copy_records_to_table(
            "outbox",
            records=[
                (shard_of(run), run, last - events + 1, last, events * len(data)) for run, last in advanced
            ],
            columns=["shard", "run_id", "first_seq", "last_seq", "bytes"],
        )
