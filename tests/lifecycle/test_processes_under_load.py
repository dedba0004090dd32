"""kill -9 of every process of services that have two of each: appends and streams go on elsewhere, and nothing is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.family import children_of
from juinie_testkit.follower import Follower
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import START_SECONDS, ServiceProcess, Stack
from juinie_testkit.waits import await_outbox_flush, eventually

FOLLOWERS = 8
PATIENTLY = 240

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def key(pool: Pool) -> SeededKey:
    return await Seed(pool).key()


@pytest.fixture
async def stack(
    database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, tmp_path: Path
) -> AsyncGenerator[Stack]:
    settings = {"JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS, "JUINIE_PROCESSES": "2"}
    async with Stack(
        database_url, kafka_bootstrap_servers, kafka_topic, tmp_path, environment=settings
    ) as made:
        yield made


async def kill_each_process(service: ServiceProcess) -> None:
    """One after the other, each once the one before it is replaced."""
    for victim in sorted(children_of(service.pid)):
        os.kill(victim, signal.SIGKILL)
        await eventually(
            lambda victim=victim: len(children_of(service.pid) - {victim}) == 2,
            START_SECONDS,
            f"another process of {service.name}",
        )
        await service.until_ready()


async def append_until_answered(api: ApiClient, run_id: str, number: int) -> None:
    while True:
        with suppress(httpx.TransportError):
            await api.append(run_id, ("token", number), idempotency_key=f"append-{number}")
            return
        await asyncio.sleep(0.05)  # as a client backs off


async def test_streams_and_appends_go_on_while_every_process_is_killed_once(
    stack: Stack, pool: Pool, key: SeededKey
):
    killing = asyncio.Event()
    async with ApiClient(stack.api.url, key.text, timeout_seconds=60) as api:
        run_id = (await api.create())["run_id"]
        followers = [Follower([stack.gateway.url], run_id, key=key.text) for _ in range(FOLLOWERS)]

        async def feed() -> int:
            number = 0
            while not killing.is_set():
                await append_until_answered(api, run_id, number)
                number += 1
            return number

        async with asyncio.TaskGroup() as tasks:
            for follower in followers:
                tasks.create_task(follower.follow(PATIENTLY))
            feeding = tasks.create_task(feed())
            await eventually(lambda: all(7 in follower.seqs for follower in followers), 60, "all in mid-run")
            for service in stack.services:
                await kill_each_process(service)
            killing.set()
            appended = await feeding
            await api.finish(run_id)
        last_seq = (await api.get(run_id))["last_seq"]
    assert last_seq == appended + 3
    for follower in followers:
        assert follower.seqs == list(range(1, last_seq + 1)), follower.describe()
        assert len(follower.watchers) > 1
    await await_outbox_flush(pool, run_id)
