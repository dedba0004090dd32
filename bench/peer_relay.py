"""Juinie's relay beside that of faststream-outbox: the same events, from the same Postgres to the same broker, by turns.

The peer has a database of its own, and a topic. Its outbox keeps whole messages, where ours points at the events; it is filled
in one transaction whose commit begins the turn, as it relays whatever it sees.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from append import EVENT_BYTES, RUNS, Shape
from peer_message import message
from peer_programs import python_of, running
from relay import counted, produced, relayed, waited
from rounds import Measured, Sample, Side, by_turns
from world import PARTITIONS, World

from juinie_testkit.kafka import create_topic

PEERS = Path(__file__).parent / "peers"
DATABASE = "faststream_outbox"


@dataclass(frozen=True, slots=True)
class Options:
    """How the peer is set up: concurrent handlers, rows of a claim, rows of a delete, how long its producer waits for more, and
    whether its handler is written as its documentation has it.
    """

    workers: int = 32
    fetched: int = 500
    deleted: int = 100
    linger_ms: int = 0
    as_documented: bool = False

    def __str__(self) -> str:
        changed = [
            f"{one.name} {getattr(self, one.name)}"
            for one in fields(self)
            if getattr(self, one.name) != one.default
        ]
        return ", ".join(changed) or "fastest"


FASTEST, IN_ORDER = Options(), Options(workers=1)
"""With more than one worker, what a run wrote later may come to Kafka sooner."""
AS_DOCUMENTED = Options(as_documented=True)
TRIED: Sequence[Options] = [
    FASTEST,
    Options(workers=8),
    Options(workers=16),
    Options(workers=64, fetched=1000),
    Options(deleted=1),
    Options(deleted=500),
    Options(fetched=100),
    Options(linger_ms=5),
]
_TURN_SECONDS = 120
_IN_ORDER_SHARE = 5
"""One worker waits for each acknowledgement: it gets a part of the events, to be done in as many seconds."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A relay that runs, and where its messages come from and go to."""

    pid: int
    queue: str
    topic: str


async def measure(world: World, shape: Shape, rounds: int, told: Callable[[str], None]) -> Measured:
    """By turns: Juinie, Juinie again, the peer as fast as it goes, as its documentation has it, and in order, and the floor. A unit is an event."""
    runs = await world.runs(RUNS)
    publisher = await world.service("juinie_publisher", "JUINIE_PUBLISHER_PORT")
    async with AsyncExitStack() as stack:
        fastest = await stack.enter_async_context(peer(world, "fastest", FASTEST))
        documented = await stack.enter_async_context(peer(world, "as-documented", AS_DOCUMENTED))
        in_order = await stack.enter_async_context(peer(world, "in-order", IN_ORDER))
        sides = [
            Side("juinie", partial(relayed, world, publisher, runs, shape)),
            Side("again", partial(relayed, world, publisher, runs, shape)),
            Side("faststream-outbox", partial(peer_relayed, world, fastest, runs, shape)),
            Side("faststream-outbox, as documented", partial(peer_relayed, world, documented, runs, shape)),
            Side("faststream-outbox, in order", partial(peer_relayed, world, in_order, runs, _less(shape))),
            Side("floor", partial(produced, world, runs, shape)),
        ]
        return await by_turns("event", sides, rounds, told)


async def measure_settings(world: World, shape: Shape, rounds: int, told: Callable[[str], None]) -> Measured:
    """The peer alone, by turns as each of several settings has it."""
    runs = await world.runs(RUNS)
    async with AsyncExitStack() as stack:
        sides = list[Side]()
        for options in TRIED:
            one = await stack.enter_async_context(peer(world, f"tried-{len(sides)}", options))
            sides.append(Side(str(options), partial(peer_relayed, world, one, runs, shape)))
        return await by_turns("event", sides, rounds, told)


def _less(shape: Shape) -> Shape:
    return replace(shape, appends=shape.appends // _IN_ORDER_SHARE)


@asynccontextmanager
async def peer(world: World, name: str, options: Options) -> AsyncGenerator[Peer]:
    """The relay of faststream-outbox, ready, with a queue and a topic of this name.

    Raises:
        Missing: it cannot be had here.
    """
    assert world.kafka is not None
    python = python_of(PEERS / "faststream_outbox.txt")
    url = await _database(world)
    topic = f"peer.{name}"
    await create_topic(world.kafka.bootstrap, topic, PARTITIONS)
    settings = {
        "database_url": url.replace("postgresql://", "postgresql+asyncpg://"),
        "kafka": world.kafka.bootstrap,
        "topic": topic,
        "queue": name,
        "linger_ms": options.linger_ms,
        "as_documented": options.as_documented,
        "subscriber": {
            "max_workers": options.workers,
            "fetch_batch_size": options.fetched,
            "terminal_flush_batch_size": options.deleted,
        },
    }
    log = world.directory / f"{topic}.log"
    program = [str(python), str(PEERS / "faststream_outbox_relay.py")]
    with running(
        topic,
        program,
        log,
        {"PEER_SETTINGS": json.dumps(settings)},
        lambda: log.exists() and "ready" in log.read_text().splitlines(),
    ) as child:
        yield Peer(child.pid, name, topic)


async def _database(world: World) -> str:
    """The URL of the peer's database, on the same server as ours; made where it is not there yet."""
    async with world.pool.connection() as connection:
        if not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", DATABASE
        ):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    return f"{world.postgres.url.rpartition('/')[0]}/{DATABASE}"


async def peer_relayed(world: World, peer: Peer, runs: Sequence[UUID], shape: Shape) -> Sample:
    """From the commit of all its messages to the end of the last; all are on its topic then.

    Raises:
        TimeoutError: it did not relay them. It tries again and again, and says nothing: give its brokers a logger.
    """
    connection = await asyncpg.connect(await _database(world))
    units = shape.appends * shape.events
    messages = [
        (peer.queue, *message(runs[n % len(runs)], world.key.tenant_id, n // len(runs) + 1, EVENT_BYTES))
        for n in range(units)
    ]
    already = await _on_topic(world, peer.topic)
    try:
        await connection.execute("VACUUM outbox")
        filling = connection.transaction()
        await filling.start()
        await connection.copy_records_to_table(
            "outbox", records=messages, columns=["queue", "payload", "headers"]
        )
        last = await connection.fetchval("SELECT max(id) FROM outbox")
        await connection.execute("SELECT pg_notify('outbox_outbox', $1)", peer.queue)
        async with world.pool.connection() as ours:
            await ours.execute("CHECKPOINT")

        async def relay() -> None:
            await filling.commit()
            async with asyncio.timeout(_TURN_SECONDS):
                # The last one first: it is found by its key, without a look at all that is dead.
                await waited(connection, f"SELECT EXISTS (SELECT FROM outbox WHERE id = {last})")
                await waited(connection, "SELECT EXISTS (SELECT FROM outbox)")

        sample = await counted(world, peer.pid, units, relay)
    finally:
        await connection.close()
    sent = await _on_topic(world, peer.topic) - already
    assert sent >= units, f"Of {units} messages {sent} came to the topic."
    return sample


async def _on_topic(world: World, topic: str) -> int:
    """How many records have been written to it."""
    assert world.kafka is not None
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=world.kafka.bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(topic, n) for n in range(PARTITIONS)])
        return sum(ends.values())
    finally:
        await consumer.stop()
