"""Rates and quotas over HTTP: who is refused, with what, for how long, and that nobody else notices."""

import asyncio
import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from juinie_api.app import serve
from juinie_api.settings import Settings
from juinie_shared.contracts.names import DEV_API_KEY
from juinie_shared.db.keys import ensure_dev_key
from juinie_shared.db.pool import Pool
from juinie_testkit.proxy import Proxy
from juinie_testkit.running import RunningService, running
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import eventually

WINDOW_SECONDS = 60
WAITING_FOR_LOCKS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'juinie-api' AND wait_event_type = 'Lock'
"""


@pytest.fixture
def seed(pool: Pool) -> Seed:
    return Seed(pool)


@pytest.fixture
async def key(seed: Seed) -> SeededKey:
    return await seed.key()


@pytest.fixture
def changed(settings: Settings) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        return Settings.model_validate({**settings.model_dump(), **changes})

    return make


@asynccontextmanager
async def client_of(service: RunningService, key: str) -> AsyncGenerator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=service.url, headers=headers, trust_env=False, timeout=30
    ) as client:
        yield client


async def database_seconds(pool: Pool) -> float:
    async with pool.connection() as connection:
        return await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")


async def until_next_window(pool: Pool) -> None:
    """Where little is left of the present one, wait for the next: what a test counts falls into one window."""

    async def has_time() -> bool:
        return await database_seconds(pool) % WINDOW_SECONDS < WINDOW_SECONDS - 20

    await eventually(has_time, 35, "a window that has just begun")


async def in_one_window(pool: Pool, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run it; again, as often as it takes, where a window ended meanwhile: then what it counted lies in two."""

    async def window() -> int:
        return int(await database_seconds(pool) // WINDOW_SECONDS)

    while True:
        await until_next_window(pool)
        began = await window()
        try:
            await scenario()
        except AssertionError:
            if await window() == began:
                raise
        else:
            if await window() == began:
                return


async def create(client: httpx.AsyncClient) -> str:
    created = await client.post("/v1/runs", json={"agent": "a"})
    assert created.status_code == 201, created.text
    return created.json()["run_id"]


def left(response: httpx.Response, policy: str) -> int:
    """`r` of this policy in a `RateLimit` header."""
    (item,) = [part for part in response.headers["ratelimit"].split(", ") if part.startswith(f'"{policy}"')]
    return int(item.split(";")[1].removeprefix("r="))


def check_refused(response: httpx.Response, code: str, *policies: str) -> None:
    assert response.status_code == 429, response.text
    problem = response.json()
    assert (problem["status"], problem["code"]) == (429, code)
    assert problem["type"] == f"urn:juinie:problem:{code}"
    assert problem["violated-policies"] == list(policies)
    assert re.fullmatch("(?!0{32})[0-9a-f]{32}", problem["trace_id"])
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert 1 <= int(response.headers["retry-after"]) <= WINDOW_SECONDS


async def test_requests_over_the_limit_are_refused_and_the_answers_say_what_is_left(
    settings: Settings, seed: Seed, pool: Pool, key: SeededKey
):
    await seed.limit(key, requests_per_minute=3)
    await until_next_window(pool)
    async with running(serve, settings) as service, client_of(service, key.text) as client:
        answers = [await client.get("/v1/runs") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [left(answer, "tenant-requests") for answer in answers] == [2, 1, 0, 0]
        for answer in answers:
            assert answer.headers["ratelimit-policy"] == '"tenant-requests";q=3;w=60'
        check_refused(answers[-1], "rate_limited", "tenant-requests")
        (reset,) = [part for part in answers[-1].headers["ratelimit"].split(";") if part.startswith("t=")]
        assert abs(int(reset.removeprefix("t=")) - int(answers[-1].headers["retry-after"])) <= 1
        metrics = (await client.get("/metrics")).text
        assert 'juinie_api_over_limit_total{code="rate_limited"} 1.0' in metrics
        assert str(key.tenant_id) not in metrics


async def test_after_retry_after_the_same_request_succeeds(
    changed: Callable[..., Settings], seed: Seed, key: SeededKey
):
    await seed.limit(key, requests_per_minute=60)
    settings = changed(rate_window_seconds=1)
    async with running(serve, settings) as service, client_of(service, key.text) as client:
        for _ in range(3):
            answer = await client.get("/v1/runs")
            while answer.status_code != 429:
                answer = await client.get("/v1/runs")
            due = time.monotonic() + int(answer.headers["retry-after"])
            await eventually(lambda due=due: time.monotonic() >= due, 60, "the time that was told")
            assert (await client.get("/v1/runs")).status_code == 200


async def test_key_and_tenant_have_limits_of_their_own(
    settings: Settings, seed: Seed, pool: Pool, key: SeededKey
):
    second, other = await seed.key(), await seed.key("b")
    await seed.limit(key, requests_per_minute=5)
    await seed.limit(key, of_key=True, requests_per_minute=2)
    await until_next_window(pool)
    async with (
        running(serve, settings) as service,
        client_of(service, key.text) as limited,
        client_of(service, second.text) as sibling,
        client_of(service, other.text) as stranger,
    ):
        answers = [await limited.get("/v1/runs") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        check_refused(answers[-1], "rate_limited", "key-requests")
        answers = [await sibling.get("/v1/runs") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        check_refused(answers[-1], "rate_limited", "tenant-requests")
        for _ in range(20):
            answer = await stranger.get("/v1/runs")
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers


async def test_bad_credential_is_told_before_the_rate_and_the_rate_before_all_else(
    settings: Settings, seed: Seed, pool: Pool, key: SeededKey
):
    await seed.limit(key, requests_per_minute=1)
    await until_next_window(pool)
    async with running(serve, settings) as service, client_of(service, key.text) as client:
        assert (await client.get("/v1/runs")).status_code == 200
        for _ in range(3):
            unknown = await client.get("/v1/runs", headers={"Authorization": "Bearer jn_nobody"})
            assert unknown.status_code == 401
            assert "ratelimit" not in unknown.headers
        refused = await client.post(
            "/v1/runs", params={"no": "such"}, content=b"{", headers={"Accept": "text/html"}
        )
        check_refused(refused, "rate_limited", "tenant-requests")


async def test_refusal_waits_for_no_body(settings: Settings, seed: Seed, pool: Pool, key: SeededKey):
    await seed.limit(key, requests_per_minute=1)
    await until_next_window(pool)
    async with running(serve, settings) as service, client_of(service, key.text) as client:
        assert (await client.get("/v1/runs")).status_code == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(
            b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
            b"Authorization: Bearer " + key.text.encode() + b"\r\n\r\n"
        )
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 429 ")
        writer.close()


async def test_events_and_bytes_over_the_quota_are_refused_whole_and_nothing_is_written(
    settings: Settings, seed: Seed, pool: Pool, key: SeededKey
):
    await seed.limit(key, events_per_minute=5, bytes_per_minute=2000)
    await until_next_window(pool)
    async with running(serve, settings) as service, client_of(service, key.text) as client:
        path = f"/v1/runs/{await create(client)}"
        three, large = [{"type": "x"}] * 3, [{"type": "x", "data": "y" * 1990}]
        assert (await client.post(f"{path}/events", json={"events": three})).status_code == 201
        refused = await client.post(f"{path}/events", json={"events": three})
        check_refused(refused, "quota_exceeded", "tenant-events")
        assert left(refused, "tenant-events") == 2
        refused = await client.post(f"{path}/events", json={"events": large})
        check_refused(refused, "quota_exceeded", "tenant-bytes")
        refused = await client.post(f"{path}/finish", json={"status": "success", "events": three})
        check_refused(refused, "quota_exceeded", "tenant-events")
        run = (await client.get(path)).json()
        assert (run["status"], run["last_seq"]) == ("running", 5)
        assert (await client.post(f"{path}/finish", json={"status": "success"})).status_code == 200


async def test_replayed_requests_are_charged_as_requests_alone(
    settings: Settings, seed: Seed, pool: Pool, key: SeededKey
):
    await seed.limit(key, events_per_minute=4)
    await until_next_window(pool)
    async with running(serve, settings) as service, client_of(service, key.text) as client:
        path = f"/v1/runs/{await create(client)}"
        body = {"events": [{"type": "x"}] * 2}
        for replayed in (False, True, True, True):
            answer = await client.post(f"{path}/events", json=body, headers={"Idempotency-Key": "k"})
            assert answer.status_code == 201
            assert ("idempotency-replayed" in answer.headers) == replayed
            assert left(answer, "tenant-events") == 2


async def test_what_was_refused_is_charged_as_a_request_alone(
    settings: Settings, seed: Seed, pool: Pool, key: SeededKey
):
    await seed.limit(key, events_per_minute=5, bytes_per_minute=10_000, active_runs=2)
    ended, waiting, locked = [
        await seed.run(key, status=status) for status in ("success", "pending", "pending")
    ]
    await until_next_window(pool)
    async with running(serve, settings) as service, client_of(service, key.text) as client:
        body, lease = {"events": [{"type": "x"}] * 4}, {"Juinie-Lease": str(ended)}
        refusals = [
            await client.post(f"/v1/runs/{ended}/events", json=body),
            await client.post(f"/v1/runs/{waiting}/events", json=body, headers=lease),
            await client.post(f"/v1/runs/{key.tenant_id}/events", json=body),
            await client.post(f"/v1/runs/{ended}/finish", json={"status": "error", **body}),
            await client.post("/v1/runs", json={"agent": "a", "run_id": str(ended)}),
            await client.post("/v1/runs", json={"agent": "a"}),
        ]
        async with pool.transaction() as holder:
            await holder.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await holder.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", locked)
            refusals.append(await client.post(f"/v1/runs/{locked}/events", json=body))
        assert [answer.json()["code"] for answer in refusals] == [
            "run_finished", "lease_lost", "run_not_found", "run_finished", "too_many_active_runs",
            "too_many_active_runs", "run_locked",
        ]  # fmt: skip
        for answer in refusals:
            assert (left(answer, "tenant-events"), left(answer, "tenant-bytes")) == (5, 10_000)
        assert (await client.post(f"/v1/runs/{locked}/events", json=body)).status_code == 201


async def test_limit_holds_over_two_processes(settings: Settings, seed: Seed, pool: Pool, key: SeededKey):
    await seed.limit(key, requests_per_minute=300)
    async with (
        running(serve, settings) as one,
        running(serve, settings) as two,
        client_of(one, key.text) as first,
        client_of(two, key.text) as second,
    ):

        async def both_are_used_up() -> None:
            for _ in range(60):
                assert (await first.get("/v1/runs/x")).status_code == 404
            sent_to_second = 0

            async def second_knows() -> bool:
                nonlocal sent_to_second
                answer = await second.get("/v1/runs/x")
                sent_to_second += 1
                return left(answer, "tenant-requests") == 300 - 60 - sent_to_second

            await eventually(second_knows, 10, "the second process to know what the first has let through")
            while (await second.get("/v1/runs/x")).status_code == 404:
                sent_to_second += 1
            assert sent_to_second == 300 - 60

            async def first_knows() -> bool:
                return (await first.get("/v1/runs/x")).status_code == 429

            await eventually(first_knows, 10, "the first process to know it of the second")

        await in_one_window(pool, both_are_used_up)


async def test_without_postgres_the_limit_of_each_process_goes_on(
    changed: Callable[..., Settings], database_url: str, seed: Seed, pool: Pool, key: SeededKey
):
    await seed.limit(key, requests_per_minute=3)
    await until_next_window(pool)
    async with Proxy.before(database_url) as proxy:
        settings = changed(database_url=proxy.url_through(database_url))
        async with running(serve, settings) as service, client_of(service, key.text) as client:
            assert (await client.get("/v1/runs")).status_code == 200
            await proxy.refuse()
            answers = [await client.get("/v1/runs") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [503, 503, 429]
            await proxy.resume()


async def test_development_key_has_no_rate_limit(changed: Callable[..., Settings], pool: Pool):
    async with pool.connection() as connection:
        await ensure_dev_key(connection)
    settings = changed(env="dev", requests_per_minute=1, events_per_minute=1, max_active_runs=1)
    async with running(serve, settings) as service, client_of(service, DEV_API_KEY) as client:
        for _ in range(20):
            await create(client)


async def test_noisy_tenant_takes_nothing_of_a_quiet_one(
    settings: Settings, seed: Seed, pool: Pool, key: SeededKey
):
    quiet = await seed.key("b")
    await seed.limit(key, requests_per_minute=10)
    await seed.limit(quiet, "b", requests_per_minute=60)
    await until_next_window(pool)
    async with (
        running(serve, settings) as service,
        client_of(service, key.text) as noisy,
        client_of(service, quiet.text) as calm,
    ):
        path = f"/v1/runs/{await create(calm)}/events"
        noise = [asyncio.create_task(noisy.get("/v1/runs")) for _ in range(100)]
        for _ in range(50):
            answer = await calm.post(path, json={"events": [{"type": "x"}]})
            assert answer.status_code == 201
        statuses = [(await task).status_code for task in noise]
        assert (statuses.count(200), statuses.count(429)) == (10, 90)


async def test_tenant_whose_runs_are_locked_leaves_connections_to_the_others(
    changed: Callable[..., Settings], seed: Seed, pool: Pool, key: SeededKey
):
    quiet = await seed.key("b")
    locked = [await seed.run(key) for _ in range(8)]
    body = {"events": [{"type": "x"}]}
    async with (
        running(
            serve, changed(database_connections=8)
        ) as service,  # two of them for what is committed together
        client_of(service, key.text) as slow,
        client_of(service, quiet.text) as calm,
        pool.transaction() as holder,
    ):
        path = f"/v1/runs/{await create(calm)}/events"
        await holder.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await holder.execute("SELECT FROM run WHERE run_id = ANY($1::uuid[]) FOR UPDATE", locked)
        stuck = [asyncio.create_task(slow.post(f"/v1/runs/{run_id}/events", json=body)) for run_id in locked]

        async def all_that_may_wait_for_locks() -> bool:
            async with pool.connection() as connection:
                return await connection.fetchval(WAITING_FOR_LOCKS) == 5

        await eventually(
            all_that_may_wait_for_locks,
            5,
            "all but one of the connections to wait for locks, of those that are no flight's",
        )
        for _ in range(10):
            assert (await calm.post(path, json=body)).status_code == 201
        assert {(await task).json()["code"] for task in stuck} <= {"run_locked", "database_busy"}


async def test_waiting_requests_of_a_tenant_have_so_many_places(
    settings: Settings, seed: Seed, key: SeededKey
):
    other = await seed.key("b")
    await seed.limit(key, waiting_requests=2)
    run_id, others = await seed.run(key), await seed.run(other)
    async with (
        running(serve, settings) as service,
        client_of(service, key.text) as client,
        client_of(service, other.text) as stranger,
    ):
        path = f"/v1/runs/{run_id}"
        waiting = [
            asyncio.create_task(client.get(f"{path}/wait", params={"timeout_seconds": 60})),
            asyncio.create_task(client.get(f"{path}/events", params={"wait_seconds": 30, "after_seq": 1})),
        ]

        async def both_wait() -> bool:
            return "juinie_api_long_polls 2.0" in (await client.get("/metrics")).text

        await eventually(both_wait, 10, "both to wait")
        refused = await client.get(f"{path}/wait", params={"timeout_seconds": 60})
        check_refused(refused, "too_many_waiting", "tenant-waiting")
        assert (await client.get(f"{path}/events")).status_code == 200
        assert (await client.get(f"{path}/wait", params={"timeout_seconds": 0})).status_code == 202
        assert (
            await stranger.get(f"/v1/runs/{others}/wait", params={"timeout_seconds": 0.1})
        ).status_code == 202
        await seed.append(run_id, ("x", None), notify=True)
        assert (await waiting[1]).status_code == 200
        again = asyncio.create_task(client.get(f"{path}/wait", params={"timeout_seconds": 60}))
        await eventually(both_wait, 10, "another one to have the place that was given back")
        assert (await client.post(f"{path}/finish", json={"status": "success"})).status_code == 200
        assert [(await task).status_code for task in (waiting[0], again)] == [200, 200]


async def test_active_runs_of_a_tenant_are_bounded(settings: Settings, seed: Seed, key: SeededKey):
    other = await seed.key("b")
    await seed.limit(key, active_runs=2)
    async with (
        running(serve, settings) as service,
        client_of(service, key.text) as client,
        client_of(service, other.text) as stranger,
    ):
        once = {"Idempotency-Key": "k"}
        first = await client.post("/v1/runs", json={"agent": "a"}, headers=once)
        assert first.status_code == 201
        await create(client)
        refused = await client.post("/v1/runs", json={"agent": "a"})
        check_refused(refused, "too_many_active_runs", "tenant-active-runs")
        replayed = await client.post("/v1/runs", json={"agent": "a"}, headers=once)
        assert (replayed.status_code, replayed.json()["run_id"]) == (201, first.json()["run_id"])
        await create(stranger)
        assert len((await client.get("/v1/runs")).json()["items"]) == 2
        path = f"/v1/runs/{first.json()['run_id']}/cancel"
        assert (await client.post(path)).json()["status"] == "cancelled"
        await create(client)


async def test_defaults_of_the_settings_hold_for_tenants_without_quotas(
    changed: Callable[..., Settings], seed: Seed, pool: Pool, key: SeededKey
):
    free = await seed.key("b")
    await seed.limit(free, "b", requests_per_minute=None)
    await until_next_window(pool)
    async with (
        running(serve, changed(requests_per_minute=2)) as service,
        client_of(service, key.text) as client,
        client_of(service, free.text) as unlimited,
    ):
        assert [(await client.get("/v1/runs")).status_code for _ in range(3)] == [200, 200, 429]
        for _ in range(10):
            assert "ratelimit" not in (await unlimited.get("/v1/runs")).headers


def test_window_of_a_test_is_the_servers():
    assert math.isclose(WINDOW_SECONDS, Settings.model_fields["rate_window_seconds"].default)
