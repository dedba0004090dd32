"""Caps on open streams, for a tenant, a key and a run, over two gateways; and that no place is ever lost."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from juinie_shared.contracts.stream_tokens import StreamTokenSigner
from juinie_shared.db.pool import Pool
from juinie_stream_gateway.app import serve
from juinie_stream_gateway.settings import Settings
from juinie_testkit.running import RunningService, running
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import eventually
from juinie_testkit.watcher import Watcher

HOLD = (
    "INSERT INTO shared_count (counter, process_id, amount, seen_at) VALUES ($1, $2, $3, clock_timestamp())"
)
AGE = "UPDATE shared_count SET seen_at = seen_at - interval '20 seconds' WHERE process_id = $1"
TOLD = "SELECT coalesce(sum(amount), 0)::int FROM shared_count WHERE counter = $1"


@pytest.fixture
def without_kafka(settings_with: Callable[..., Settings]) -> Callable[..., Settings]:
    """What is asked here needs no Kafka."""
    return lambda **changes: settings_with(kafka_bootstrap_servers="127.0.0.1:9", **changes)


@asynccontextmanager
async def two_gateways(settings: Settings) -> AsyncGenerator[tuple[RunningService, RunningService]]:
    async with running(serve, settings) as one, running(serve, settings) as two:
        yield one, two


class Crowd:
    """Watchers that stay until the end of the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def watch(self, service: RunningService, run_id: UUID, **credential: Any) -> Watcher:
        return await self._stack.enter_async_context(Watcher(service.url, run_id, **credential))

    async def is_sent_away(self, service: RunningService, run_id: UUID, **credential: Any) -> bool:
        """Whether one more is told to come back: 200, the reason, and a body that is cut."""
        async with Watcher(service.url, run_id, **credential) as late:
            await eventually(lambda: late.controls or late.state != "open", 10, "a first frame")
            if late.controls[0].event != "stream.reconnect":
                return False
            await late.until_closed(10)
            assert (late.status, late.state) == (200, "cut")
            assert late.control("stream.reconnect") == {"reason": "too_many_streams"}
            assert b"retry: " in late.raw
            return True


@pytest.fixture
async def crowd() -> AsyncGenerator[Crowd]:
    async with AsyncExitStack() as stack:
        yield Crowd(stack)


async def told(pool: Pool, counter: str, amount: int) -> None:
    """Wait until the gateways have told each other so much."""

    async def as_much() -> bool:
        async with pool.connection() as connection:
            return await connection.fetchval(TOLD, counter) == amount

    await eventually(as_much, 10, f"{counter} to be {amount}")


async def open_streams(service: RunningService) -> str:
    async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return next(line for line in lines if line.startswith("juinie_streams_open "))


async def test_streams_of_a_tenant_are_bounded_over_gateways(
    without_kafka: Callable[..., Settings], seed: Seed, key: SeededKey, crowd: Crowd
) -> None:
    other = await seed.key("b")
    await seed.limit(key, streams=3)
    runs, others = [await seed.run(key) for _ in range(3)], await seed.run(other)
    async with two_gateways(without_kafka()) as (one, two):
        await crowd.watch(one, runs[0], key=key.text)
        await crowd.watch(one, runs[1], key=key.text)
        staying = await crowd.watch(two, runs[2], key=key.text)
        for service in (one, two):
            await eventually(
                lambda service=service: crowd.is_sent_away(service, runs[0], key=key.text),
                10,
                "the tenant's cap",
            )
        await (await crowd.watch(two, others, key=other.text)).until_caught_up()
        await seed.finish(runs[2])
        await staying.until_closed(10)

        async def free_again() -> bool:
            return not await crowd.is_sent_away(one, runs[0], key=key.text)

        await eventually(free_again, 10, "the place that was given back on the other gateway")


async def test_streams_of_a_key_count_those_of_its_tokens(
    without_kafka: Callable[..., Settings], seed: Seed, key: SeededKey, crowd: Crowd, signing_keys: str
) -> None:
    name, _, secret = signing_keys.partition("=")
    sibling, run_id = await seed.key(), await seed.run(key)
    await seed.limit(key, of_key=True, streams=2)
    token, _ = StreamTokenSigner({name: secret}).sign(run_id, key.tenant_id, key.key_id, 60)
    async with running(serve, without_kafka()) as service:
        await crowd.watch(service, run_id, key=key.text)
        await crowd.watch(service, run_id, token=token)
        assert await crowd.is_sent_away(service, run_id, token=token)
        assert await crowd.is_sent_away(service, run_id, key=key.text)
        await (await crowd.watch(service, run_id, key=sibling.text)).until_caught_up()


async def test_streams_of_a_run_are_bounded_over_gateways(
    without_kafka: Callable[..., Settings], seed: Seed, key: SeededKey, crowd: Crowd, pool: Pool
) -> None:
    run_id, other_run = await seed.run(key), await seed.run(key)
    async with two_gateways(without_kafka(max_streams_per_run=2)) as (one, two):
        await crowd.watch(one, run_id, key=key.text)
        await crowd.watch(two, run_id, key=key.text)
        await told(pool, f"streams run {run_id}", 2)
        for service in (one, two):
            await eventually(
                lambda service=service: crowd.is_sent_away(service, run_id, key=key.text), 10, "the run's cap"
            )
            await (await crowd.watch(service, other_run, key=key.text)).until_caught_up()


async def test_gateway_that_died_holds_no_place_for_long(
    without_kafka: Callable[..., Settings], seed: Seed, key: SeededKey, crowd: Crowd, pool: Pool
) -> None:
    await seed.limit(key, streams=2)
    run_id, dead = await seed.run(key), uuid4()
    async with pool.connection() as connection:
        await connection.execute(HOLD, f"streams tenant {key.tenant_id}", dead, 2)
    async with running(serve, without_kafka()) as service:
        await crowd.watch(service, run_id, key=key.text)  # nothing is known of others yet
        await eventually(
            lambda: crowd.is_sent_away(service, run_id, key=key.text), 10, "what the dead one held to count"
        )
        async with pool.connection() as connection:
            await connection.execute(AGE, dead)

        async def free_again() -> bool:
            return not await crowd.is_sent_away(service, run_id, key=key.text)

        await eventually(free_again, 10, "it to count no more")


async def test_thousand_that_connect_and_leave_hold_no_place(
    without_kafka: Callable[..., Settings], seed: Seed, key: SeededKey, crowd: Crowd, pool: Pool
) -> None:
    run_id = await seed.run(key)
    head = f"GET /v1/runs/{run_id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.text}\r\n\r\n".encode()
    async with running(serve, without_kafka(max_streams=60, max_streams_per_run=55)) as service:

        async def connect_and_leave(number: int) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(head[: len(head) - 10 * (number % 2)])
            await writer.drain()
            writer.transport.abort()

        for _ in range(20):
            await asyncio.gather(*(connect_and_leave(number) for number in range(50)))

        async def nobody() -> bool:
            return await open_streams(service) == "juinie_streams_open 0.0"

        await eventually(nobody, 30, "no stream to be open")
        for _ in range(55):
            await crowd.watch(service, run_id, key=key.text)
        assert await open_streams(service) == "juinie_streams_open 55.0"
        assert await crowd.is_sent_away(service, run_id, key=key.text)
        await told(pool, f"streams run {run_id}", 55)
