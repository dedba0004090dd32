"""One service's clock is wrong by an hour, or set back by a minute while it runs, and nobody notices but its log.

Each service is a process with a clock of its own (libfaketime). The database, Kafka and this test have the machine's.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from juinie_shared.db.pool import Pool, open_pool
from juinie_testkit.client import ApiClient
from juinie_testkit.kafka import create_topic, read_topic
from juinie_testkit.own_clock import OwnClock
from juinie_testkit.plugin import SIGNING_KEYS, MakeClock, MakeStack
from juinie_testkit.raw_stream import raw_stream
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import ServiceProcess, Stack
from juinie_testkit.waits import await_outbox_flush, await_stream_completion, eventually
from juinie_testkit.watcher import Watcher

HOUR, MINUTE, LITTLE = 3600, 60, 20
"""Seconds. Stream tokens have a leeway of 30."""
SHORTEST_LEASE, LONG_LEASE, SOON = 5, 60, 40
"""Seconds. What an hour would be added to is over within `SOON`, also on a machine that is busy."""

SERVICES = ("api", "publisher", "gateway-1")

pytestmark = pytest.mark.timeout(300)


class Wrong(NamedTuple):
    """The service whose clock is wrong, by so many seconds."""

    service: ServiceProcess
    ahead: int


class Clocks:
    """The clock of each service of a stack."""

    def __init__(self, stack: Stack, clocks: dict[str, OwnClock]) -> None:
        self.stack, self._clocks = stack, clocks
        self._begun_with = dict.fromkeys(clocks, 0)

    def service(self, name: str) -> ServiceProcess:
        return next(service for service in self.stack.services if service.name == name)

    def set(self, name: str, seconds_ahead: int) -> None:
        """While the service runs."""
        self._clocks[name].set(seconds_ahead)

    async def begin_with(self, wrong: dict[str, int]) -> None:
        """All run, these with a clock that was wrong when they began, the others with one that was right."""
        for name in self._clocks:
            ahead = wrong.get(name, 0)
            self.set(name, ahead)
            if self._begun_with[name] != ahead and self.service(name).running:
                await self.service(name).stop()
            self._begun_with[name] = ahead
        await self.stack.start()


@pytest.fixture(scope="module")
def clocks(make_stack: MakeStack, make_clock: MakeClock) -> Generator[Clocks]:
    """A stack of which each service has its own clock."""
    made = {service: make_clock(service) for service in SERVICES}
    own = {service: clock.environment for service, clock in made.items()}
    with make_stack(environment={"JUINIE_STREAM_HEARTBEAT_SECONDS": "1"}, own=own) as stack:
        yield Clocks(stack, made)


@pytest.fixture(
    scope="module",
    params=[(name, ahead) for name in SERVICES for ahead in (HOUR, -HOUR)],
    ids=lambda who: f"{who[0]} {who[1]:+d} s",
)
def who(request: pytest.FixtureRequest) -> tuple[str, int]:
    """Each service in turn, by its name, and by how much its clock is wrong. Of the module, so that few have to begin anew."""
    return request.param


@pytest.fixture
async def wrong(clocks: Clocks, who: tuple[str, int]) -> Wrong:
    """A service that began with a clock that is wrong by an hour."""
    name, ahead = who
    await clocks.begin_with({name: ahead})
    return Wrong(clocks.service(name), ahead)


@pytest.fixture
async def right(clocks: Clocks) -> Clocks:
    """Clocks that are right, for a test that sets one."""
    await clocks.begin_with({})
    return clocks


@pytest.fixture
async def stack(clocks: Clocks) -> AsyncGenerator[Stack]:
    """A failing test shows its logs."""
    yield clocks.stack
    print(clocks.stack.logs())


@pytest.fixture
async def stack_pool(stack: Stack) -> AsyncGenerator[Pool]:
    pool = await open_pool(stack.database_url, "test")
    yield pool
    await pool.close()


@pytest.fixture
async def key(stack_pool: Pool) -> SeededKey:
    return await Seed(stack_pool).key(tenant=f"tenant-{uuid4()}")


@pytest.fixture
async def api(stack: Stack, key: SeededKey) -> AsyncGenerator[ApiClient]:
    async with ApiClient(stack.api.url, key.text, timeout_seconds=2 * SOON) as client:
        yield client


async def test_its_log_has_the_wrong_time(wrong: Wrong):
    """Or the tests below would show nothing."""
    [started] = [line for line in log_of(wrong.service)[-20:] if line["event"] == "ready"][-1:]
    off = moment(started["timestamp"]) - datetime.now(UTC)
    assert abs(off - timedelta(seconds=wrong.ahead)) < timedelta(seconds=HOUR / 2)


@pytest.mark.usefixtures("wrong")
async def test_leases_and_deadlines_end_by_the_databases_clock(api: ApiClient, stack_pool: Pool):
    await check_leases(api, stack_pool)
    short = (await api.create(timeout_seconds=1))["run_id"]
    long = (await api.create(timeout_seconds=HOUR // 2))["run_id"]
    waited = await api.http.get(f"/v1/runs/{short}/wait", params={"timeout_seconds": SOON})
    ended = waited.json()
    assert (waited.status_code, ended["status"], ended["error"]) == (200, "timeout", {"code": "deadline"})
    assert moment(ended["finished_at"]) >= moment(ended["deadline_at"])
    assert (await api.get(long))["status"] == "pending"


@pytest.mark.usefixtures("wrong")
async def test_events_come_once_in_order_with_the_databases_times(
    api: ApiClient, stack: Stack, stack_pool: Pool, key: SeededKey
):
    began = await database_time(stack_pool)
    run_id = (await api.create())["run_id"]
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        for number in range(20):
            await api.append(run_id, ("token", number), idempotency_key=f"k{number}")
        twice = await api.append(run_id, ("token", 7), idempotency_key="k7")
        assert (twice["first_seq"], twice["last_seq"]) == (10, 10)
        await api.finish(run_id)
        await await_stream_completion(watcher)
    run, ended = await api.get(run_id), await database_time(stack_pool)
    times = [moment(frame.json["time"]) for frame in watcher.events]
    times += [moment(run[name]) for name in ("created_at", "started_at", "finished_at")]
    assert began <= min(times)
    assert max(times) <= ended
    await check_whole(stack, stack_pool, watcher, run_id, 23)


async def test_a_token_is_refused_by_a_clock_that_differs_by_an_hour_and_good_once_it_is_right(
    wrong: Wrong, clocks: Clocks, stack: Stack, api: ApiClient, key: SeededKey
):
    run_id = (await api.create())["run_id"]
    token = await api.stream_token(run_id)
    async with Watcher(stack.gateway.url, run_id, token=token) as watcher:
        if wrong.service is stack.publisher:  # which has nothing to do with it
            assert watcher.status == 200
            return
        assert watcher.status == 401
        assert watcher.problem["code"] == "unauthorized"
    async with Watcher(stack.gateway.url, run_id, token="none") as stranger:
        assert stranger.status == 401
        assert told(stranger) == told(watcher), "nobody learns why"
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        assert watcher.status == 200, "a key has no clock"
    clocks.set(wrong.service.name, 0)
    token = await api.stream_token(run_id)
    async with Watcher(stack.gateway.url, run_id, token=token) as watcher:
        await watcher.until_caught_up()


@pytest.mark.parametrize("ahead", [LITTLE, -LITTLE])
@pytest.mark.parametrize("name", ["api", "gateway-1"])
async def test_a_token_is_taken_by_clocks_that_differ_within_the_leeway(
    right: Clocks, stack: Stack, api: ApiClient, name: str, ahead: int
):
    run_id = (await api.create())["run_id"]
    right.set(name, ahead)
    token = await api.stream_token(run_id)
    async with Watcher(stack.gateway.url, run_id, token=token) as watcher:
        await watcher.until_caught_up()


async def test_it_waits_as_long_as_it_should_and_stops_when_asked(
    wrong: Wrong, stack: Stack, api: ApiClient, key: SeededKey
):
    run_id = (await api.create())["run_id"]
    await check_waits(api, run_id)
    before = cpu_ticks(wrong.service)
    async with raw_stream(stack.gateway.port, run_id, key.text) as stream:
        await asyncio.wait_for(comments(stream, 4), SOON)
    spent = (cpu_ticks(wrong.service) - before) / os.sysconf("SC_CLK_TCK")
    assert spent < 1.5, "of the 3 s and more in which it had nothing to do"
    assert await wrong.service.stop() == 0
    await wrong.service.start()


@pytest.mark.parametrize("name", SERVICES)
async def test_a_clock_that_is_set_back_in_mid_run_moves_nothing(
    right: Clocks, stack: Stack, stack_pool: Pool, api: ApiClient, name: str
):
    began = await database_time(stack_pool)
    run_id = (await api.create())["run_id"]
    token = await api.stream_token(run_id)
    held = await claim(api, lease_seconds=LONG_LEASE)
    async with Watcher(stack.gateway.url, run_id, token=token) as watcher:
        for number in range(10):
            await api.append(run_id, ("token", number))
        await watcher.until_seq(12)
        right.set(name, -MINUTE)
        for number in range(10, 20):
            await api.append(run_id, ("token", number))
        await watcher.until_seq(22)
        await check_leases(api, stack_pool)
        await check_waits(api, (await api.create())["run_id"])
        assert (await api.get(held["run"]["run_id"]))["status"] == "running"
        async with Watcher(stack.gateway.url, run_id, token=token) as late:
            assert late.status == (401 if name == "gateway-1" else 200), "made in what is now its future"
        await api.finish(run_id)
        await await_stream_completion(watcher)
    await eventually(lambda: was_set_back(right.service(name)), SOON, "a log that shows it")
    times = [moment(frame.json["time"]) for frame in watcher.events]
    assert times == sorted(times)
    assert began <= times[0]
    await check_whole(stack, stack_pool, watcher, run_id, 23)


async def test_a_topic_with_the_publishers_time_takes_no_record_of_more_than_an_hour_ahead_until_its_clock_is_right(
    database_url: str, pool: Pool, kafka_bootstrap_servers: str, kafka_topic: str, tmp_path: Path, make_clock: MakeClock
):  # fmt: skip
    """One that somebody made with Kafka's defaults (`CreateTime`); ours have the broker's time. Watchers miss nothing."""
    await create_topic(kafka_bootstrap_servers, kafka_topic, 3)
    clock = make_clock("publisher of a topic that was there")
    clock.set(HOUR + MINUTE)
    async with Stack(
        database_url, kafka_bootstrap_servers, kafka_topic, tmp_path,
        environment={"JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS}, own={"publisher": clock.environment},
    ) as stack:  # fmt: skip
        key = await Seed(pool).key(tenant=f"tenant-{uuid4()}")
        async with ApiClient(stack.api.url, key.text) as api:
            run_id = (await api.create())["run_id"]
            async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
                await api.append(run_id, ("token", "Hel"))
                await api.finish(run_id)
                await await_stream_completion(watcher)
        await eventually(lambda: is_refused(stack.publisher), SOON, "records refused")
        clock.set(0)
        await check_whole(stack, pool, watcher, run_id, 4)


async def check_leases(api: ApiClient, pool: Pool) -> None:
    """Of two leases of five seconds the one that is renewed holds; the other ends, neither early nor late."""
    kept = await claim(api, lease_seconds=SHORTEST_LEASE)
    before = await database_time(pool)
    renewed = await api.http.post(
        f"/v1/runs/{kept['run']['run_id']}/heartbeat",
        headers={"Juinie-Lease": kept["lease"]["token"]},
        json={"lease_seconds": LONG_LEASE},
    )
    after = await database_time(pool)
    assert renewed.status_code == 200, renewed.text
    renewal = timedelta(seconds=LONG_LEASE)
    assert before + renewal <= moment(renewed.json()["expires_at"]) <= after + renewal

    left = await claim(api, lease_seconds=SHORTEST_LEASE)
    run_id, agent = left["run"]["run_id"], left["run"]["agent"]
    again = await eventually(
        lambda: take(api, agent), SOON, "the lease taken back, and the run claimed again"
    )
    assert (again["run"]["run_id"], again["lease"]["attempt"]) == (run_id, 2)
    [expired] = [event for event in await api.events(run_id) if event["type"] == "run.lease_expired"]
    assert moment(expired["time"]) >= moment(left["lease"]["expires_at"])
    refused = await api.http.post(
        f"/v1/runs/{run_id}/heartbeat", headers={"Juinie-Lease": left["lease"]["token"]}
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "lease_lost")
    run = await api.get(kept["run"]["run_id"])
    assert (run["status"], run["attempt"]) == ("running", 1)


async def claim(api: ApiClient, lease_seconds: int) -> dict[str, Any]:
    """A new run, of an agent that it has to itself, and its first lease."""
    agent = f"agent-{uuid4()}"
    await api.create(agent=agent)
    taken = await take(api, agent, lease_seconds)
    assert taken
    return taken


async def take(api: ApiClient, agent: str, lease_seconds: int = LONG_LEASE) -> dict[str, Any] | None:
    """What a worker gets that is ready to wait."""
    body = {"agents": [agent], "worker_id": "w", "lease_seconds": lease_seconds, "wait_seconds": 10}
    answer = await api.http.post("/v1/claims", json=body)
    assert answer.status_code in {200, 204}, answer.text
    return answer.json() if answer.status_code == 200 else None


async def check_waits(api: ApiClient, run_id: str) -> None:
    """A wait for nothing ends with nothing; one that something comes to ends with it."""
    last_seq = (await api.get(run_id))["last_seq"]
    page = await api.http.get(f"/v1/runs/{run_id}/events", params={"after_seq": last_seq, "wait_seconds": 1})
    assert (page.status_code, page.json()["events"]) == (200, [])
    waited = await api.http.get(f"/v1/runs/{run_id}/wait", params={"timeout_seconds": 1})
    assert waited.status_code == 202
    assert 0 < int(waited.headers["Retry-After"]) <= MINUTE
    longest = {"after_seq": last_seq, "wait_seconds": 30}
    waiting = asyncio.create_task(api.http.get(f"/v1/runs/{run_id}/events", params=longest))
    appended = await api.append(run_id, ("token", "at last"))
    page = await waiting
    assert page.json()["events"][-1]["seq"] == appended["last_seq"]


async def check_whole(stack: Stack, pool: Pool, watcher: Watcher, run_id: str, count: int) -> None:
    """A run that ended: so many events at its watcher and on Kafka, each once, in order, the same bytes."""
    assert watcher.seqs == list(range(1, count + 1))
    assert watcher.control("stream.end") == {"last_seq": count, "status": "success"}
    await await_outbox_flush(pool, run_id)
    records = await read_topic(
        stack.kafka_bootstrap_servers,
        stack.kafka_topic,
        lambda records: sum(record.key == run_id.encode() for record in records) >= count,
    )
    sent = [record.value for record in records if record.key == run_id.encode()]
    assert sent == [(frame.data or "").encode() for frame in watcher.events]


async def comments(stream: Any, count: int) -> None:
    """Read until so many comments have come."""
    while stream.received.count(b"\n:") < count:
        assert await stream.read(), stream.received


async def database_time(pool: Pool) -> datetime:
    async with pool.connection() as connection:
        return await connection.fetchval("SELECT clock_timestamp()")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def told(watcher: Watcher) -> dict[str, Any]:
    """A refusal, without what is each request's own."""
    return {name: value for name, value in watcher.problem.items() if name != "trace_id"}


def log_of(service: ServiceProcess) -> list[dict[str, Any]]:
    lines = service.log.read_text(errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def is_refused(publisher: ServiceProcess) -> bool:
    """Whether its log says that Kafka does not take the time of its records."""
    return any(line.get("reason") == "InvalidTimestampError" for line in log_of(publisher))


def was_set_back(service: ServiceProcess) -> bool:
    """Whether a line of its log says that it is more than half a minute older than the line before."""
    times = [moment(line["timestamp"]) for line in log_of(service)]
    back = timedelta(seconds=-MINUTE / 2)
    return any(later - earlier < back for earlier, later in pairwise(times))


def cpu_ticks(service: ServiceProcess) -> int:
    """What its process has used of the processor."""
    stat = Path(f"/proc/{service.pid}/stat").read_text(encoding="ascii")
    user, system = stat.rpartition(")")[2].split()[11:13]
    return int(user) + int(system)
