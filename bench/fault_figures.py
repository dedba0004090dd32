"""Figures that the list of faults names: what others feel of a fault, against what they feel without, in turns within one run.

.venv/bin/pytest -s bench/fault_figures.py -k health        # or first_byte, slow_connections, return_at_once, locked_run
"""

import asyncio
import re
import resource
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self
from uuid import UUID

import httpx
import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.manners import give_way
from juinie_testkit.proxy import Proxy
from juinie_testkit.raw_stream import RawStream, connect_raw, stream_request
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import Stack

pytestmark = pytest.mark.timeout(900)

TURNS = 4
EVERY_SECONDS = 0.02
HUNG_SECONDS, BLOCKED_APPENDS, LOOK_SECONDS = 30.0, 20, 0.1
LOCKED_SECONDS = 30.0
LONG_RUN_EVENTS, LOOKS = 200_000, 40
CONNECTIONS, HALF_HEADS, HALF_BODIES, SLOW_SECONDS = 10_000, 500, 500, 15.0
COME_EVERY_SECONDS = 0.001
"""As often as they are closed, after 10 s, once all are there."""
REQUEST = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
WATCHERS, RUNS, EVENTS, SEEN = 5_000, 50, 200, 100


# ---- measuring ---------------------------------------------------------------------------------------------------------


def told(what: str, seconds: list[float]) -> str:
    seconds = sorted(seconds)
    p50, p99 = (seconds[int(len(seconds) * share)] * 1000 for share in (0.5, 0.99))
    return f"{what}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {seconds[-1] * 1000:.1f} ms ({len(seconds)})"


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


async def at_a_steady_pace(
    act: Callable[[], Awaitable[object]], until: Callable[[], bool], every_seconds: float = EVERY_SECONDS
) -> list[float]:
    """How long each took."""
    took = list[float]()
    while not until():
        began = time.perf_counter()
        await act()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(max(0.0, began + every_seconds - time.perf_counter()))
    return took


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


class Appender:
    """Appends to one run."""

    def __init__(self, stack: Stack, key: SeededKey, run_id: UUID) -> None:
        self._path = f"{stack.api.url}/v1/runs/{run_id}/events"
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key.text}"}, trust_env=False, timeout=30
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def append(self) -> None:
        answer = await self._http.post(self._path, json={"events": [{"type": "x", "data": 1}]})
        assert answer.status_code == 201, answer.text

    async def measured(self, until: Callable[[], bool]) -> list[float]:
        return await at_a_steady_pace(self.append, until)


def tell_ratio(calm: list[list[float]], faulty: list[list[float]]) -> None:
    """By turns, and the median of the turns: noise of the machine comes in some of them."""
    ratios = [p99(bad) / p99(good) for good, bad in zip(calm, faulty, strict=True)]
    print(told("  calm", [one for turn in calm for one in turn]))
    print(told("  faulty", [one for turn in faulty for one in turn]))
    print(
        f"  ratio of p99 by turns: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; median {statistics.median(ratios):.2f}"
    )


# ---- what is measured ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def key(pool: Pool) -> SeededKey:
    return await Seed(pool).key()


@asynccontextmanager
async def a_stack(url: str, servers: str, topic: str, directory: Path, keys: str) -> AsyncGenerator[Stack]:
    settings = {
        "JUINIE_STREAM_TOKEN_KEYS": keys, "JUINIE_LOG_LEVEL": "warning", "JUINIE_MAX_STREAMS_PER_TENANT": "20000",
        "JUINIE_MAX_STREAMS_PER_RUN": "20000", "JUINIE_MAX_STREAMS_PER_KEY": "20000",
    }  # fmt: skip
    async with Stack(url, servers, topic, directory, environment=settings) as stack:
        yield stack


@pytest.fixture
async def stack(
    database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, tmp_path: Path, signing_keys: str
) -> AsyncGenerator[Stack]:
    async with a_stack(database_url, kafka_bootstrap_servers, kafka_topic, tmp_path, signing_keys) as stack:
        yield stack


async def test_health_checks_while_postgres_hangs(
    database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, tmp_path: Path, signing_keys: str,
    pool: Pool, key: SeededKey,
) -> None:  # fmt: skip
    run_id = await Seed(pool).run(key)
    async with (
        Proxy.before(database_url) as proxy,
        a_stack(proxy.url_through(database_url), kafka_bootstrap_servers, kafka_topic, tmp_path, signing_keys) as stack,
        httpx.AsyncClient(trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None)) as http,
    ):  # fmt: skip
        statuses = list[int]()

        async def blocked() -> None:
            headers = {"Authorization": f"Bearer {key.text}"}
            path = f"{stack.api.url}/v1/runs/{run_id}/events"
            statuses.append(
                (await http.post(path, json={"events": [{"type": "x"}]}, headers=headers)).status_code
            )

        async def checks(seconds: float) -> None:
            paths = [f"{one.url}{path}" for one in stack.services for path in ("/livez", "/readyz")]
            took = await asyncio.gather(
                *(
                    at_a_steady_pace(lambda path=path: http.get(path), after(seconds), LOOK_SECONDS)
                    for path in paths
                )
            )
            for number, service in enumerate(stack.services):
                print(told(f"  {service.name} /livez", took[2 * number]))
                print(told(f"  {service.name} /readyz", took[2 * number + 1]))

        print("\ncalm")
        await checks(10)
        print(f"Postgres hangs, {BLOCKED_APPENDS} clients append all the time")
        proxy.hang()
        appending = [
            asyncio.create_task(at_a_steady_pace(blocked, after(HUNG_SECONDS)))
            for _ in range(BLOCKED_APPENDS)
        ]
        await checks(HUNG_SECONDS)
        late = [one for task in appending for one in await task]
        print(told(f"  appends, answered {sorted(set(statuses))}", late))
        await proxy.resume()


async def test_first_byte_of_a_backfill(stack: Stack, pool: Pool, key: SeededKey) -> None:
    run_id = await Seed(pool).run(key)
    async with pool.transaction() as tx:
        await tx.execute("SET LOCAL statement_timeout = 0")
        await tx.execute(
            "INSERT INTO run_event (run_id, seq, type, data, occurred_at) SELECT $1, n, 'token', to_json(repeat('x', 300))::text,"
            f" clock_timestamp() FROM generate_series(2, {LONG_RUN_EVENTS}) AS n", run_id, timeout=300,
        )  # fmt: skip
        await tx.execute("UPDATE run SET last_seq = $2 WHERE run_id = $1", run_id, LONG_RUN_EVENTS)
    print(f"\na run of {LONG_RUN_EVENTS:,} events")
    for after_seq in (0, LONG_RUN_EVENTS // 2, LONG_RUN_EVENTS - 1000):
        took = list[float]()
        for _ in range(LOOKS):
            began = time.perf_counter()
            stream = await connect_raw(stack.gateway.port)
            await stream.send(stream_request(run_id, key.text, after_seq))
            await stream.read_until(b"\ndata: ")
            took.append(time.perf_counter() - began)
            stream.leave(reset=True)
        print(told(f"  first event after {after_seq}", took))


@pytest.mark.parametrize("others", ["silent", "resting"])
async def test_slow_connections(stack: Stack, pool: Pool, key: SeededKey, others: str) -> None:
    calm, faulty = list[list[float]](), list[list[float]]()
    async with Appender(stack, key, await Seed(pool).run(key)) as appender:
        await appender.measured(after(3))
        for _ in range(TURNS):
            calm.append(await appender.measured(after(SLOW_SECONDS)))
            async with other_process("slow", stack.api.port, others) as slow:
                await said(slow, b"all are there")
                faulty.append(await appender.measured(after(SLOW_SECONDS)))
            await asyncio.sleep(3)
    print(
        f"\nappends beside {CONNECTIONS:,} connections to the api, each made again when it is closed: "
        f"{HALF_HEADS} half heads, {HALF_BODIES} half bodies, the others {others}"
    )
    tell_ratio(calm, faulty)


async def test_many_that_drop_and_return_at_once(stack: Stack, pool: Pool, key: SeededKey) -> None:
    seed = Seed(pool)
    run_ids = [await seed.run(key) for _ in range(RUNS)]
    for run_id in run_ids:
        await seed.append(run_id, *[("text", "x" * 150)] * EVENTS)
    calm, faulty, storms = list[list[float]](), list[list[float]](), list[tuple[str, str]]()
    async with (
        Appender(stack, key, await seed.run(key)) as appender,
        other_process("return", stack.gateway.port, key.text, *run_ids) as watchers,
    ):
        await appender.measured(after(3))
        for _ in range(TURNS):
            await said(watchers, b"all are there")
            await asyncio.sleep(2)
            calm.append(await appender.measured(after(8)))
            storm = asyncio.create_task(returned(watchers))
            faulty.append(await appender.measured(storm.done))
            storms.append(await storm)
    print(
        f"\n{WATCHERS:,} watchers of {RUNS} runs that drop and return at once, {EVENTS - SEEN} events behind"
    )
    for seconds, sent_away in storms:
        print(f"  all caught up after {seconds} s; told to come again later: {sent_away}")
    tell_ratio(calm, faulty)


async def returned(watchers: asyncio.subprocess.Process) -> tuple[str, str]:
    """After how many seconds all had caught up, and how often one was told to come again later."""
    assert watchers.stdin
    watchers.stdin.write(b"now\n")
    _, seconds, sent_away = (await said(watchers, b"returned")).split()
    return seconds, sent_away


async def said(process: asyncio.subprocess.Process, wanted: bytes) -> str:
    assert process.stdout
    line = await process.stdout.readline()
    assert line.startswith(wanted), line
    return line.decode()


async def test_others_beside_a_locked_run(stack: Stack, pool: Pool, key: SeededKey) -> None:
    seed = Seed(pool)
    locked = await seed.run(key)
    calm, faulty, statuses = list[list[float]](), list[list[float]](), list[int]()
    async with (
        Appender(stack, key, await seed.run(key)) as appender,
        httpx.AsyncClient(trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None)) as http,
    ):
        headers = {"Authorization": f"Bearer {key.text}"}
        path = f"{stack.api.url}/v1/runs/{locked}/events"

        async def wait_for_the_lock() -> None:
            answer = await http.post(path, json={"events": [{"type": "x"}]}, headers=headers)
            statuses.append(answer.status_code)

        await appender.measured(after(3))
        waited = list[float]()
        for _ in range(TURNS):
            calm.append(await appender.measured(after(SLOW_SECONDS)))
            async with pool.transaction() as holder:
                await holder.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                await holder.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", locked)
                wanting = [
                    asyncio.create_task(at_a_steady_pace(wait_for_the_lock, after(LOCKED_SECONDS - 6)))
                    for _ in range(BLOCKED_APPENDS)
                ]
                faulty.append(await appender.measured(after(LOCKED_SECONDS)))
                waited += [one for task in wanting for one in await task]
    print(
        f"\nappends to one run while another's row is locked for {LOCKED_SECONDS:g} s, and {BLOCKED_APPENDS} want it"
    )
    print(told(f"  of the locked run, answered {sorted(set(statuses))}", waited))
    tell_ratio(calm, faulty)


@asynccontextmanager
async def other_process(*arguments: object) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *map(str, arguments), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# ---- the clients, in a process of their own ---------------------------------------------------------------------------


async def be_slow(port: int, others: str) -> None:
    """So many connections at all times. Those that are not slow are silent, or rest after a request."""
    half_head = b"GET /livez HTTP/1.1\r\nX: "
    half_body = (
        b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )

    async def one(said: bytes) -> None:
        while True:
            with suppress(OSError):
                client = await connect_raw(port)
                await client.send(said)
                await client.read_all()
                client.leave()

    says = (
        [half_head] * HALF_HEADS
        + [half_body] * HALF_BODIES
        + [REQUEST if others == "resting" else b""] * (CONNECTIONS - HALF_HEADS - HALF_BODIES)
    )
    async with asyncio.TaskGroup() as tasks:
        for text in says:
            tasks.create_task(one(text))
            await asyncio.sleep(COME_EVERY_SECONDS)
        print("all are there", flush=True)


async def return_at_once(port: int, key: str, run_ids: list[str]) -> None:
    """Watch; at a word leave, all of us, and come back in the middle; say how long it took until all had caught up."""
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)

    sent_away = 0

    async def come(number: int, after_seq: int) -> RawStream:
        nonlocal sent_away
        while True:
            stream = await connect_raw(port)
            with suppress(ConnectionError):  # the end of one that is sent away
                await stream.send(stream_request(run_ids[number % RUNS], key, after_seq))
                while await stream.read():
                    if b"event: stream.caught_up\n" in stream.received:
                        return stream
            stream.leave()
            assert b"event: stream.reconnect\n" in stream.received, f"cut after {stream.received[-500:]!r}"
            sent_away += 1
            *_, told = re.findall(rb"^retry: (\d+)$", stream.received, re.MULTILINE)
            await asyncio.sleep(int(told) / 1000)

    async def all_come(after_seq: int) -> list[RawStream]:
        return await asyncio.gather(*(come(number, after_seq) for number in range(WATCHERS)))

    while True:
        there = await all_come(EVENTS)
        print("all are there", flush=True)
        await stdin.readline()
        for stream in there:
            stream.leave(reset=True)
        began, sent_away = time.monotonic(), 0
        for stream in await all_come(SEEN):
            stream.leave(reset=True)
        print(f"returned {time.monotonic() - began:.3f} {sent_away}", flush=True)


if __name__ == "__main__":
    give_way()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    what, at, *rest = sys.argv[1:]
    asyncio.run(be_slow(int(at), rest[0]) if what == "slow" else return_at_once(int(at), rest[0], rest[1:]))
