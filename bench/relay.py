"""From the outbox to Kafka: what an event costs the publisher and Postgres together, against the floor: the same records,
ready in memory, sent by aiokafka in batches.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaProducer
from append import EVENT_BYTES, RUNS, Shape, write_floor
from clocks import cpu_seconds, family
from rounds import Measured, Sample, Side, by_turns
from world import PARTITIONS, TOPIC, World

from juinie_shared.contracts.record import RunEventRecord
from juinie_shared.domain.ids import RunId, Seq
from juinie_testkit.stack import ServiceProcess

_LOOK_SECONDS = 0.02


async def measure(world: World, shape: Shape, rounds: int, told: Callable[[str], None]) -> Measured:
    """By turns: Juinie, Juinie again, and the floor. A unit is an event."""
    runs = await world.runs(RUNS)
    publisher = await world.service("juinie_publisher", "JUINIE_PUBLISHER_PORT")
    sides = [
        Side("juinie", partial(relayed, world, publisher, runs, shape)),
        Side("again", partial(relayed, world, publisher, runs, shape)),
        Side("floor", partial(produced, world, runs, shape)),
    ]
    return await by_turns("event", sides, rounds, told)


async def relayed(world: World, publisher: ServiceProcess, runs: Sequence[UUID], shape: Shape) -> Sample:
    """The relay is paused while the outbox is filled; what is counted is from its resumption to the last row's end."""
    await _set(world, "paused_at = clock_timestamp()")
    await asyncio.sleep(2.5)  # until the publisher has seen it
    await world.quiet()
    connection = await asyncpg.connect(world.postgres.url)
    data = '"' + "x" * (EVENT_BYTES - 2) + '"'
    for start in range(0, shape.appends, 50):
        chosen = [runs[n % len(runs)] for n in range(start, min(start + 50, shape.appends))]
        await write_floor(connection, chosen, shape.events, data)
    await connection.execute("CHECKPOINT")
    last = await connection.fetchval("SELECT max(id) FROM outbox")

    async def relay() -> None:
        await _set(world, "paused_at = NULL")
        await connection.execute("NOTIFY juinie_duties")
        # by its key, as whether any row is left is told only by stepping over all that are dead
        await waited(connection, f"SELECT EXISTS (SELECT FROM outbox WHERE id = {last})")
        await waited(connection, "SELECT EXISTS (SELECT FROM outbox)")

    sample = await counted(world, publisher.pid or 0, shape.appends * shape.events, relay)
    await connection.close()
    return sample


async def waited(connection: asyncpg.Connection, there: str) -> None:
    """Until a query says that there is nothing left."""
    while await connection.fetchval(there):
        await asyncio.sleep(_LOOK_SECONDS)


async def counted(world: World, pid: int, units: int, relay: Callable[[], Awaitable[None]]) -> Sample:
    """What it takes of a process with all its own, and of Postgres, until so many events are relayed; the broker's part is told beside it."""
    pids, kafka = family(pid), family(world.kafka_pid)
    before, database, broker, began = (
        cpu_seconds(pids),
        world.database_cpu(),
        cpu_seconds(kafka),
        time.perf_counter(),
    )
    await relay()
    seconds = time.perf_counter() - began
    cpu = {"service": cpu_seconds(pids) - before, "postgres": world.database_cpu() - database}
    return Sample(units, seconds, cpu, (), {"kafka_cpu": cpu_seconds(kafka) - broker})


async def _set(world: World, what: str) -> None:
    async with world.pool.connection() as connection:
        await connection.execute(f"UPDATE relay_state SET {what}")


async def produced(world: World, runs: Sequence[UUID], shape: Shape) -> Sample:
    """aiokafka as the relay uses it, from records that are ready: one batch a partition at a time."""
    assert world.kafka is not None
    value = (
        b'{"seq":1,"type":"TEXT_MESSAGE_CONTENT","time":"2026-01-01T00:00:00.000000Z","data":"'
        + b"x" * 198
        + b'"}'
    )
    records = [
        RunEventRecord(
            RunId(runs[n % len(runs)]),
            world.key.tenant_id,
            Seq(1),
            "TEXT_MESSAGE_CONTENT",
            "2026-01-01T00:00:00.000000Z",
            value,
            None,
        )
        for n in range(shape.appends)
    ]
    ready = [(record.key, record.value, record.headers()) for record in records for _ in range(shape.events)]
    lots = [ready[n::PARTITIONS] for n in range(PARTITIONS)]
    producer = AIOKafkaProducer(
        bootstrap_servers=world.kafka.bootstrap,
        acks="all",
        enable_idempotence=True,
        max_batch_size=512 * 1024,
    )
    await producer.start()
    try:
        before, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(_send(producer, partition, lot) for partition, lot in enumerate(lots)))
        return Sample(len(ready), time.perf_counter() - began, {"service": time.process_time() - before})
    finally:
        await producer.stop()


async def _send(
    producer: AIOKafkaProducer, partition: int, lot: Sequence[tuple[bytes, bytes, list[tuple[str, bytes]]]]
) -> None:
    sent = 0
    while sent < len(lot):
        batch = producer.create_batch()
        while sent < len(lot):
            key, value, headers = lot[sent]
            if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                break
            sent += 1
        await (await producer.send_batch(batch, TOPIC, partition=partition))
