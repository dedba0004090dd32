"""Rolling restarts under load lose no append and no event.

Two replicas of each service, of one process or of two, the apis and the gateways behind a balancer. The clients keep their connections, look
whether one was closed before they use it again, as HTTP clients do, and repeat nothing: no retry, no idempotency key.
Who sent nothing for longer than the last call lasts may have its next request cross the close of its connection on the wire, which
HTTP/1.1 has no answer to (decision 0026): that one may be repeated. One of them rests for so long by itself, and does as the contract
says, with a key; the others do only where this whole process stands still for as long, or an answer takes as long.
A rolling restart ends one replica with SIGTERM, starts it again, waits until it is ready, and goes on to the next.
"""

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import monotonic

import httpx
import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.balancer import Balancer
from juinie_testkit.follower import Follower
from juinie_testkit.kafka import read_topic
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import ServiceProcess, Stack
from juinie_testkit.waits import await_outbox_flush, eventually

RESTARTS = int(os.environ.get("JUINIE_TEST_RESTARTS", "1"))
"""Rolling restarts of each service: twice as many processes, for there are two replicas."""
SEED = int(os.environ.get("JUINIE_TEST_SEED", "1"))
STOP_SECONDS = 60
"""A process that gets no processor cannot end. That a service takes 10 s at most is tried where nothing else runs."""
THINKING_SECONDS = (0.0, 0.02, 0.2, 0.2, 5.0)
"""A writer each, and its longest pause: some never let their connection rest, one for longer than the last call lasts."""
LAST_CALL_SECONDS = 2
APPENDS_PER_RUN = 40

pytestmark = pytest.mark.timeout(1800)


@dataclass
class Writer:
    """Creates runs, appends to them and finishes them, one after the other, and remembers what was acknowledged."""

    http: httpx.AsyncClient
    thinking_seconds: float
    dice: random.Random
    acknowledged: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    failures: list[str] = field(default_factory=list[str])
    requests: int = 0
    repeats: int = 0

    last_sent: float = inf
    """When the last request began to be sent: its answer may have waited for this process, and tells nothing."""

    @property
    def rests(self) -> bool:
        """For longer than the last call lasts."""
        return self.thinking_seconds > LAST_CALL_SECONDS

    async def write(self, stopping: asyncio.Event, watch: "Watch") -> None:
        while not stopping.is_set():
            run = await self._post("/v1/runs", {"agent": "agent"})
            if run is not None:
                watch.begin(run["run_id"])
                await self._fill(run["run_id"], stopping)

    async def _fill(self, run_id: str, stopping: asyncio.Event) -> None:
        seqs = self.acknowledged[run_id] = [1]
        for number in range(APPENDS_PER_RUN):
            answer = await self._post(
                f"/v1/runs/{run_id}/events", {"events": [{"type": "x", "data": number}]}
            )
            if answer is not None:
                seqs.append(answer["first_seq"])
            if stopping.is_set():
                break
            await asyncio.sleep(self.dice.uniform(0, self.thinking_seconds))
        run = await self._post(f"/v1/runs/{run_id}/finish", {"status": "success"})
        if run is not None:
            seqs.append(run["last_seq"])

    async def _post(self, path: str, body: object) -> dict[str, object] | None:
        self.requests += 1
        headers = {"Idempotency-Key": f"{id(self)} {self.requests}"} if self.rests else {}
        rested, self.last_sent = monotonic() - self.last_sent, monotonic()
        try:
            answer = await self._send(path, body, headers, repeats=rested > LAST_CALL_SECONDS)
        except httpx.TransportError as error:
            self.failures.append(f"{path}, {rested:.3f} s after the one before: {error!r}")
            return None
        if answer.is_success:
            return answer.json()
        self.failures.append(f"{path}: {answer.status_code} {answer.text}")
        return None

    async def _send(
        self, path: str, body: object, headers: dict[str, str], *, repeats: bool
    ) -> httpx.Response:
        try:
            return await self.http.post(path, json=body, headers=headers)
        except httpx.TransportError:
            if not repeats:
                raise
        self.repeats += 1
        return await self.http.post(path, json=body, headers=headers)


class Watch:
    """Follows every run to its end."""

    def __init__(self, url: str, key: SeededKey, tasks: asyncio.TaskGroup) -> None:
        self._url, self._key, self._tasks = url, key, tasks
        self.followers: dict[str, Follower] = {}

    def begin(self, run_id: str) -> None:
        self.followers[run_id] = Follower([self._url], run_id, key=self._key.text)
        self._tasks.create_task(self.followers[run_id].follow(600))


async def restart(service: ServiceProcess, balancer: Balancer | None) -> None:
    """Replace one replica, once the balancer knows of the other."""
    assert await service.stop(STOP_SECONDS) == 0, service.tail()
    await service.start()
    if balancer is not None:
        await eventually(lambda: service.url in balancer.ready, 30, f"{service.name} is balanced again")


async def roll(services: list[ServiceProcess], balancer: Balancer | None = None) -> None:
    for _ in range(RESTARTS):
        for service in services:
            await restart(service, balancer)


@pytest.fixture
async def key(pool: Pool) -> SeededKey:
    return await Seed(pool).key()


@pytest.fixture(params=["1", "2"], ids=lambda processes: f"{processes} processes each")
async def stack(
    request: pytest.FixtureRequest,
    database_url: str,
    kafka_bootstrap_servers: str,
    kafka_topic: str,
    tmp_path: Path,
) -> AsyncGenerator[Stack]:
    settings = {
        "JUINIE_PROCESSES": request.param,
        "JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS,
        "JUINIE_LAST_CALL_SECONDS": str(LAST_CALL_SECONDS),
        "JUINIE_LOG_LEVEL": "info",
    }
    async with Stack(
        database_url, kafka_bootstrap_servers, kafka_topic, tmp_path, 2, settings, apis=2, publishers=2
    ) as made:
        yield made


async def test_rolling_restarts_fail_no_request_and_lose_no_event(stack: Stack, pool: Pool, key: SeededKey):
    async with (
        Balancer([api.url for api in stack.apis]) as apis,
        Balancer([gateway.url for gateway in stack.gateways]) as gateways,
    ):
        await eventually(
            lambda: len(apis.ready) == len(gateways.ready) == 2, 30, "both replicas are balanced"
        )
        writers, followers = await load_while_rolling(stack, apis, gateways, key)
    assert [failure for writer in writers for failure in writer.failures] == []
    acknowledged = {run_id: seqs for writer in writers for run_id, seqs in writer.acknowledged.items()}
    seen = {run_id: follower.seqs for run_id, follower in followers.items()}
    assert seen == {run_id: list(range(1, seqs[-1] + 1)) for run_id, seqs in acknowledged.items()}
    assert all(set(acknowledged[run_id]) <= set(seqs) for run_id, seqs in seen.items())
    assert await first_occurrences(stack, pool, seen) == seen
    connections = sum(len(follower.watchers) for follower in followers.values())
    print(
        f"rolling restarts of each service: {RESTARTS}; seed {SEED}; requests: {sum(writer.requests for writer in writers)},"
        f" failed: 0, repeated by who rested: {sum(writer.repeats for writer in writers)}; runs: {len(seen)}; events: {sum(map(len, seen.values()))}, lost: 0; stream connections: {connections}"
    )


async def load_while_rolling(
    stack: Stack, apis: Balancer, gateways: Balancer, key: SeededKey
) -> tuple[list[Writer], dict[str, Follower]]:
    """Write and watch while all services are restarted, each replica in its turn."""
    stopping = asyncio.Event()
    async with AsyncExitStack() as clients:
        writers = [
            Writer(
                await clients.enter_async_context(
                    httpx.AsyncClient(
                        base_url=apis.url,
                        headers={"Authorization": f"Bearer {key.text}"},
                        trust_env=False,
                        timeout=30,
                    )
                ),
                seconds,
                random.Random(f"{SEED} {number}"),
            )
            for number, seconds in enumerate(THINKING_SECONDS)
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = Watch(gateways.url, key, tasks)
                writing = [tasks.create_task(writer.write(stopping, watch)) for writer in writers]
                try:
                    await asyncio.gather(
                        roll(stack.apis, apis), roll(stack.gateways, gateways), roll(stack.publishers)
                    )
                finally:
                    stopping.set()
                await asyncio.wait(writing)
        except Exception as error:
            # A run that could not be finished is followed in vain: what failed says more than who waited
            error.add_note(
                f"Failed requests: {[failure for writer in writers for failure in writer.failures]};"
                f" connections that no replica was ready for: {apis.refused}"
            )
            raise
    return writers, watch.followers


async def first_occurrences(stack: Stack, pool: Pool, runs: dict[str, list[int]]) -> dict[str, list[int]]:
    """What Kafka holds of each run, in order, what is there again left out."""
    for run_id in runs:
        await await_outbox_flush(pool, run_id)
    wanted = sum(map(len, runs.values()))
    found: defaultdict[str, dict[int, None]] = defaultdict(dict)

    def complete(records: list[object]) -> bool:
        found.clear()
        for record in records:
            run_id, _, seq = dict(record.headers)["ce_id"].decode().partition(":")
            found[run_id].setdefault(int(seq))
        return sum(map(len, found.values())) >= wanted

    await read_topic(stack.kafka_bootstrap_servers, stack.kafka_topic, complete, timeout_seconds=60)
    return {run_id: list(seqs) for run_id, seqs in found.items()}
