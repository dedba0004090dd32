"""Start and stop, at every moment and in every state of Postgres and Kafka: never hangs, leaves nothing behind.

After river's `startstoptest`. The moments are turns of the event loop, so that a stop falls before the port is taken,
before Postgres has answered, in the midst of Kafka's first contact, and after all of it.
"""

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import pytest

from juinie_testkit.any_service import AnyService
from juinie_testkit.backing.docker import free_port
from juinie_testkit.leftovers import nothing_left
from juinie_testkit.proxy import Proxy
from juinie_testkit.waits import eventually

type World = Literal[
    "healthy", "postgres away", "postgres hangs", "schema missing", "kafka away", "kafka hangs"
]
type Moment = int | Literal["before", "listening", "ready"]

WITH_POSTGRES: tuple[World, ...] = ("healthy", "postgres away", "postgres hangs", "schema missing")
WITH_KAFKA: tuple[World, ...] = (*WITH_POSTGRES, "kafka away", "kafka hangs")
WORLDS = {"api": WITH_POSTGRES, "publisher": WITH_KAFKA, "stream-gateway": WITH_KAFKA}
"""Of each service: the api has nothing to do with Kafka."""
MOMENTS: tuple[Moment, ...] = ("before", 0, 1, 3, 8, 34, "listening")
ROUNDS = int(os.environ.get("JUINIE_TEST_ROUNDS", "1"))
"""More for who has the time: each with other ways to stop, and one more moment."""
SEED = int(os.environ.get("JUINIE_TEST_SEED", "1"))

pytestmark = pytest.mark.timeout(300)


@asynccontextmanager
async def settings_in(
    world: World, service: AnyService, database_url: str, empty_database_url: str, kafka: str, topic: str
) -> AsyncGenerator[Any]:
    """Settings of the service for a world in this state."""
    async with AsyncExitStack() as stack:
        if world == "postgres away":
            database_url = f"postgresql://juinie@127.0.0.1:{free_port()}/juinie"
        elif world == "postgres hangs":
            proxy = await stack.enter_async_context(Proxy.before(database_url))
            proxy.hang()
            database_url = proxy.url_through(database_url)
        elif world == "schema missing":
            database_url = empty_database_url
        elif world == "kafka away":
            kafka = f"127.0.0.1:{free_port()}"
        elif world == "kafka hangs":
            host, _, port = kafka.rpartition(":")
            proxy = await stack.enter_async_context(Proxy(host, int(port)))
            proxy.hang()
            kafka = f"127.0.0.1:{proxy.port}"
        yield service.settings(database_url, kafka, topic)


@pytest.mark.parametrize("name", WORLDS)
async def test_service_stops_that_postgres_has_left_hanging_since_it_began(
    services: dict[str, AnyService],
    name: str,
    database_url: str,
    kafka_bootstrap_servers: str,
    kafka_topic: str,
):
    """Then there are sessions to close, and a server that says nothing."""
    service = services[name]
    async with nothing_left(database_url), Proxy.before(database_url) as line:
        settings = service.settings(line.url_through(database_url), kafka_bootstrap_servers, kafka_topic)

        def leave_hanging(stopping: asyncio.Event, _serving: asyncio.Task[None]) -> None:
            line.hang()
            stopping.set()

        await stop_at(
            service, settings, "listening", leave_hanging, until=lambda: line.bytes_to_client > 2000
        )


async def stop_at(
    service: AnyService,
    settings: Any,
    moment: Moment,
    stop: Callable[[asyncio.Event, asyncio.Task[None]], None],
    until: Callable[[], bool] = lambda: True,
) -> None:
    """Start the service, stop it at this moment, and wait until it has."""
    stopping, listening = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(service.serve(settings, stopping, lambda _port: listening.set()))
    if moment == "before":
        stop(stopping, serving)
    elif moment == "listening":
        await asyncio.wait_for(listening.wait(), 20)
        await eventually(until, 20, "the moment has come")
        stop(stopping, serving)
    else:
        for _ in range(int(moment)):
            await asyncio.sleep(0)
        stop(stopping, serving)
    done, _ = await asyncio.wait({serving}, timeout=15)
    assert done, f"{service.name} hangs when it is stopped at {moment}"
    if not serving.cancelled():
        assert serving.exception() is None, f"{service.name}, stopped at {moment}: {serving.exception()!r}"


def ask(stopping: asyncio.Event, _serving: asyncio.Task[None]) -> None:
    stopping.set()


def ask_twice(stopping: asyncio.Event, _serving: asyncio.Task[None]) -> None:
    stopping.set()
    asyncio.get_running_loop().call_soon(stopping.set)


def cancel(_stopping: asyncio.Event, serving: asyncio.Task[None]) -> None:
    serving.cancel()


def ask_and_cancel(stopping: asyncio.Event, serving: asyncio.Task[None]) -> None:
    stopping.set()
    asyncio.get_running_loop().call_later(0.05, serving.cancel)


STOPS = (ask, cancel, ask_twice, ask_and_cancel)


@pytest.mark.parametrize(
    ("name", "world"), [(name, world) for name, worlds in WORLDS.items() for world in worlds]
)
async def test_service_stops_at_any_moment_and_leaves_nothing(
    services: dict[str, AnyService],
    name: str,
    world: World,
    database_url: str,
    empty_database_url: str,
    kafka_bootstrap_servers: str,
    kafka_topic: str,
):
    service = services[name]
    dice = random.Random(f"{SEED} {name} {world}")
    schema = empty_database_url if world == "schema missing" else database_url
    async with (
        nothing_left(schema),
        settings_in(
            world, service, database_url, empty_database_url, kafka_bootstrap_servers, kafka_topic
        ) as settings,
    ):
        for _ in range(ROUNDS):
            for moment in (*MOMENTS, dice.randrange(1000)):
                await stop_at(service, settings, moment, dice.choice(STOPS))
