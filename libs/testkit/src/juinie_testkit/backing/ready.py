"""Is a server up? Asked with the very clients that the services use."""

import asyncio
import logging
import threading
from collections.abc import Coroutine

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from juinie_shared.db.pool import connect
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy
from juinie_testkit.backing.session import CannotHave


def run_aside[T](work: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end in an event loop of its own, whatever loop the caller's thread has."""
    results: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=target, name="juinie-testkit")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


async def wait_for_postgres(url: str, timeout_seconds: float) -> None:
    """Wait until Postgres takes a connection.

    Raises:
        CannotHave: it does not within `timeout_seconds`.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            while not await _postgres_answers(url):
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise CannotHave(f"Postgres took no connection within {timeout_seconds:g} s") from error


async def wait_for_kafka(servers: str, timeout_seconds: float) -> None:
    """Wait until Kafka answers for its cluster.

    Raises:
        CannotHave: it does not within `timeout_seconds`.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            while not await kafka_answers(servers):
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise CannotHave(f"Kafka did not answer within {timeout_seconds:g} s") from error


async def _postgres_answers(url: str) -> bool:
    try:
        connection = await connect(url, "juinie-testkit")
    except (DatabaseAway, DatabaseBusy):
        return False
    await connection.close()
    return True


async def kafka_answers(servers: str) -> bool:
    """Whether a broker among `servers` answers now."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it shouts each time that the answer is no
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=2000)
    try:
        await admin.start()
        await admin.list_topics()
    except (KafkaError, OSError):
        return False
    finally:
        await admin.close()
    return True
