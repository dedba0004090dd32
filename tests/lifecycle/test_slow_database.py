"""A Postgres whose every answer takes two seconds longer: services live, and get well by themselves when it is quick again."""

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from juinie.torture.proxy import BadLine, Mode
from juinie_api.app import serve
from juinie_api.settings import Settings
from juinie_shared.db.pool import Pool
from juinie_testkit.any_service import SIGNING_KEYS, AnyService
from juinie_testkit.running import RunningService, running
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

SLOW_SECONDS = 2.0
SOON = 60
REQUESTS = 20


@pytest.fixture
async def line(database_url: str) -> AsyncGenerator[BadLine]:
    parts = urlsplit(database_url)
    async with BadLine(
        parts.hostname or "127.0.0.1", parts.port or 5432, delay_seconds=SLOW_SECONDS
    ) as between:
        yield between


def through(line: BadLine, database_url: str) -> str:
    parts = urlsplit(database_url)
    user, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{line.port}"))


def client_of(service: RunningService) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=60)


async def test_service_lives_with_a_slow_postgres_and_is_well_when_it_is_quick_again(
    service: AnyService, database_url: str, line: BadLine, kafka_bootstrap_servers: str, kafka_topic: str
):
    settings = service.settings(through(line, database_url), kafka_bootstrap_servers, kafka_topic)
    async with running(service.serve, settings) as started, client_of(started) as client:
        line.set(Mode.DELAY)
        line.cut()  # sessions that are made anew take several of those answers each

        async def says_what_it_waits_for() -> bool:
            assert (await client.get("/livez")).status_code == 200
            ready = await client.get("/readyz")
            return ready.status_code == 503 and "database" in ready.text

        await eventually(says_what_it_waits_for, SOON, "a service that waits for Postgres")
        line.set(Mode.GOOD)
        await started.until_ready(SOON)


async def test_requests_to_a_slow_postgres_are_answered_or_refused_and_nothing_is_torn(
    database_url: str, line: BadLine, pool: Pool
):
    key = await Seed(pool).key()
    run_id = await Seed(pool).run(key)
    path, body = f"/v1/runs/{run_id}/events", {"events": [{"type": "pair"}, {"type": "pair"}]}
    headers = {"Authorization": f"Bearer {key.text}"}
    settings = Settings.model_validate(
        {
            "database_url": through(line, database_url),
            "env": "test",
            "port": 0,
            "stream_token_keys": SIGNING_KEYS,
            "last_call_seconds": 0,
        }
    )
    async with running(serve, settings) as started, client_of(started) as client:
        line.set(Mode.DELAY)
        answers = await asyncio.gather(
            *(client.post(path, json=body, headers=headers) for _ in range(REQUESTS))
        )
        line.set(Mode.GOOD)
        await started.until_ready(SOON)
        last = await client.post(path, json=body, headers=headers)
        assert last.status_code == 201
        stored = (await client.get(path, headers=headers)).json()["events"]

    assert {answer.status_code for answer in answers} <= {201, 503}
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 503)
    acknowledged = [answer.json()["last_seq"] for answer in (*answers, last) if answer.status_code == 201]
    assert len(set(acknowledged)) == len(acknowledged)
    assert [event["seq"] for event in stored] == list(range(1, last.json()["last_seq"] + 1))
    assert [event["type"] for event in stored[2:]] == ["pair"] * (len(stored) - 2)
    assert len(stored) % 2 == 0
