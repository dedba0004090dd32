"""The relay of faststream-outbox, as its documentation has it: a Kafka publisher over a subscriber of the outbox.

A program of its own, in a venv of its own: it knows nothing of Juinie. What it is asked to do is one JSON object in
`PEER_SETTINGS`: `database_url` (asyncpg's, for SQLAlchemy), `kafka`, `topic`, `queue`, `linger_ms` of the producer,
`subscriber`, the options of the subscriber, and `as_documented`: the handler asks for its message as the documentation has
it, which costs a thread's turn a message; otherwise it takes it from the context, and nothing looks at its arguments. It
writes `ready` when it is.
"""

import asyncio
import json
import os

import uvloop
from faststream.kafka import KafkaBroker, KafkaResponse
from faststream_outbox import OutboxBroker, make_outbox_table, outbox_autovacuum_ddl
from faststream_outbox.annotations import OutboxMessage
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine

_TABLE = "outbox"


async def main() -> None:
    settings = json.loads(os.environ["PEER_SETTINGS"])
    options = settings["subscriber"]
    metadata = MetaData()
    table = make_outbox_table(metadata, _TABLE)
    engine = create_async_engine(settings["database_url"], pool_size=options["max_workers"] + 2)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(text(outbox_autovacuum_ddl(_TABLE)))
    documented = settings["as_documented"]
    # Neither logs a line a message, which FastStream does otherwise.
    outbox = OutboxBroker(engine, outbox_table=table, logger=None, apply_types=documented)
    kafka = KafkaBroker(
        settings["kafka"],
        logger=None,
        acks="all",
        enable_idempotence=True,
        max_batch_size=512 * 1024,
        linger_ms=settings["linger_ms"],
    )

    def response(body: bytes, message: OutboxMessage) -> KafkaResponse:
        headers = message.headers | {"content-type": "application/json"}
        return KafkaResponse(body, key=message.headers["ce_subject"].encode(), headers=headers)

    async def relay(body: bytes) -> KafkaResponse:
        return response(body, outbox.context.get_local("message"))

    async def relay_as_documented(body: bytes, message: OutboxMessage) -> KafkaResponse:
        return response(body, message)

    subscribed = outbox.subscriber(settings["queue"], **options)(relay_as_documented if documented else relay)
    kafka.publisher(settings["topic"])(subscribed)

    await kafka.start()
    await outbox.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
