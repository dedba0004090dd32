"""The floor of the way from an append to its watcher: one process that stores it, sends it to Kafka, has it back, and writes it to who
watches its run. The same Postgres, durable, the same Kafka and the same loop, and nothing else: no keys, no limits, no idempotence, no
outbox, so that what is stored may never be sent, and nothing for who was not there.

A program of its own, whose settings are one JSON object in `FLOOR_SETTINGS`: `database_url`, `kafka`, `topic`, `port`. It writes
`ready` when it is. `POST` and `GET` are of paths as ours are; of all else in a request it knows nothing.
"""

import asyncio
import json
import os
from collections import defaultdict
from typing import Any, override
from uuid import UUID

import asyncpg
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

CONNECTIONS = 16
_APPEND = """
    WITH advanced AS (
        UPDATE run SET last_seq = last_seq + cardinality($2::text[]) WHERE run_id = $1 RETURNING last_seq
    )
    INSERT INTO run_event (run_id, seq, type, data, occurred_at)
    SELECT $1, last_seq - cardinality($2::text[]) + place, 'TEXT_MESSAGE_CONTENT', data, clock_timestamp()
    FROM advanced, unnest($2::text[]) WITH ORDINALITY AS event (data, place)
    RETURNING seq
"""
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_CREATED = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}"


class Whole:
    """All of it. A run has one watcher, and its appends come one after the other, or they would overtake each other."""

    def __init__(self, pool: Any, producer: Any, topic: str) -> None:
        self._pool, self._producer, self._topic = pool, producer, topic
        self.watchers: dict[bytes, asyncio.WriteTransport] = {}
        self._turns: defaultdict[bytes, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def append(self, run: bytes, body: bytes, answer: asyncio.WriteTransport) -> None:
        data = [orjson.dumps(event["data"]) for event in orjson.loads(body)["events"]]
        async with self._turns[run]:
            rows = await self._pool.fetch(_APPEND, UUID(run.decode()), [text.decode() for text in data])
            answer.write(_CREATED)
            frames = [b"data: %b\nid: %d\n\n" % (text, row[0]) for text, row in zip(data, rows, strict=True)]
            await self._producer.send(self._topic, b"".join(frames), key=run)

    async def hand_on(self, consumer: Any) -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    if watcher := self.watchers.get(record.key):
                        watcher.write(b"%x\r\n%b\r\n" % (len(record.value), record.value))


class Connection(asyncio.Protocol):
    def __init__(self, whole: Whole) -> None:
        self._whole, self._received = whole, b""
        self._appends = set[asyncio.Task[None]]()
        self._transport: Any = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        method, path, _ = head.split(b" ", 2)
        run = path.split(b"/")[3]
        if method == b"GET":
            self._whole.watchers[run] = self._transport
            self._transport.write(_HEAD)
        elif len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            self._received = b""
            task = asyncio.ensure_future(self._whole.append(run, body, self._transport))
            self._appends.add(task)
            task.add_done_callback(self._appends.discard)


async def main() -> None:
    settings = json.loads(os.environ["FLOOR_SETTINGS"])
    pool: Any = await asyncpg.create_pool(
        settings["database_url"], min_size=CONNECTIONS, max_size=CONNECTIONS
    )
    producer: Any = AIOKafkaProducer(bootstrap_servers=settings["kafka"], acks="all", enable_idempotence=True)
    consumer: Any = AIOKafkaConsumer(settings["topic"], bootstrap_servers=settings["kafka"])
    await producer.start()
    await consumer.start()
    while not consumer.assignment():
        await asyncio.sleep(0.01)
    await consumer.seek_to_end()
    whole = Whole(pool, producer, settings["topic"])
    await asyncio.get_running_loop().create_server(
        lambda: Connection(whole), "127.0.0.1", settings["port"], backlog=1000
    )
    print("ready", flush=True)
    await whole.hand_on(consumer)


if __name__ == "__main__":
    uvloop.run(main())
