"""Bytes that are nearly requests, at both HTTP ports: no 5xx, no hang over 5 s, no exit, and all given back afterwards."""

import asyncio
import random
from itertools import islice
from typing import Any

import httpx
import pytest

from juinie_api import app as api_app
from juinie_api.settings import Settings as ApiSettings
from juinie_stream_gateway import app as gateway_app
from juinie_stream_gateway.settings import Settings as GatewaySettings
from juinie_testkit.any_service import AnyService
from juinie_testkit.client import ApiClient
from juinie_testkit.fuzz.cost import Cost
from juinie_testkit.fuzz.mutations import make_case
from juinie_testkit.fuzz.requests import api_requests, stream_requests
from juinie_testkit.fuzz.wire import Tally, knock
from juinie_testkit.running import running
from juinie_testkit.seed import SeededKey
from juinie_testkit.stack import ServiceProcess, Stack
from juinie_testkit.waits import eventually

RUNS = 40
CROWDS = 4
NOISE_BYTES, CASE_BYTES = 3 * 2**19, 64
"""What the last crowd may add to what the service holds after those before it, and for each case of it besides. What is made once
(code, caches, pools) is there by then; what is kept of each case grows on. Python asks for memory a MiB at a time, so crowds of some
hundred differ by a MiB whatever is kept: they show what keeps 5 KB of a case, and only large ones what keeps less."""
POOL = 12
"""Descriptors: the pool's connections, which come and go."""

pytestmark = pytest.mark.timeout(3600)


async def make_runs(api: ApiClient) -> list[str]:
    """Runs in every state that an append can bring about."""
    made: list[str] = []
    for number in range(RUNS):
        run_id = str((await api.create())["run_id"])
        made.append(run_id)
        if number % 4:
            await api.append(run_id, ("a", 1), ("b", {"x": "y"}), ("c", None))
        if number % 4 == 3:
            await api.finish(run_id)
    return made


async def fuzz(service: ServiceProcess, requests: list[bytes], cases: int, seed: str) -> Tally:
    """Send all cases, in crowds of one size, and see that the last one makes the service hold no more than those before it."""
    dice, tally, costs = random.Random(seed), Tally(), [Cost.of(service.pid or 0)]
    left = iter([make_case(dice, requests) for _ in range(cases)])
    for crowd in range(1, CROWDS + 1):
        await knock(service.port, islice(left, cases // CROWDS if crowd < CROWDS else None), dice, tally)
        costs.append(Cost.of(service.pid or 0))
    await given_back(service, costs[-2], cases // CROWDS)
    print(
        f"{service.name}, seed {seed!r}: {tally}; held before and after each crowd: {'; '.join(map(str, costs))}"
    )
    return tally


async def given_back(service: ServiceProcess, before: Cost, cases: int) -> None:
    most = before.resident_bytes + NOISE_BYTES + CASE_BYTES * cases

    def is_back() -> bool:
        now = Cost.of(service.pid or 0)
        return (
            now.resident_bytes <= most
            and now.descriptors <= before.descriptors + POOL
            and now.threads <= before.threads
        )

    await eventually(
        is_back, 30, f"{service.name} holds what it held, {before}, and not {Cost.of(service.pid or 0)}"
    )


def assert_all_went_well(tally: Tally, cases: int) -> None:
    assert tally.failures == []
    assert tally.cases.total() == cases
    assert tally.statuses[200] + tally.statuses[201] > 0, "no valid request was among them"


async def test_bytes_at_the_api(stack: Stack, key: SeededKey, plan: Any):
    async with ApiClient(stack.api.url, key.text) as api:
        run_ids = await make_runs(api)
        document = (await api.http.get("/openapi.json")).json()
    requests = api_requests(document, key.text, run_ids)
    cases = plan.cases_of("bytes at the api")
    assert_all_went_well(await fuzz(stack.api, requests, cases, f"{plan.seed} api"), cases)


async def test_bytes_at_the_gateway(stack: Stack, key: SeededKey, plan: Any):
    async with ApiClient(stack.api.url, key.text) as api:
        run_ids = await make_runs(api)
        token = await api.stream_token(run_ids[0], ttl_seconds=3600)
    requests = stream_requests(key.text, token, run_ids)
    cases = plan.cases_of("bytes at the gateway")
    assert_all_went_well(await fuzz(stack.gateway, requests, cases, f"{plan.seed} gateway"), cases)
    await eventually(lambda: open_streams(stack), 30, "no stream is open")


async def open_streams(stack: Stack) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        lines = (await http.get(f"{stack.gateway.url}/metrics")).text.splitlines()
    return "juinie_streams_open 0.0" in lines


@pytest.mark.parametrize("service", [api_app, gateway_app], ids=["api", "gateway"])
async def test_bytes_leave_no_task_behind(service: Any, stack: Stack, key: SeededKey, plan: Any):
    """In this process, where tasks can be counted."""
    settings_class = ApiSettings if service is api_app else GatewaySettings
    settings = AnyService("", service.serve, settings_class, "", "").settings(
        stack.database_url, stack.kafka_bootstrap_servers, stack.kafka_topic
    )
    async with ApiClient(stack.api.url, key.text) as api:
        run_id = str((await api.create())["run_id"])
        document = (await api.http.get("/openapi.json")).json()
    requests = api_requests(document, key.text, [run_id])
    if service is gateway_app:
        requests = stream_requests(key.text, "x", [run_id])
    async with running(service.serve, settings) as started:
        dice = random.Random(f"{plan.seed} tasks")
        await knock(started.port, (make_case(dice, requests) for _ in range(40)), dice)
        before = {str(task.get_coro()) for task in asyncio.all_tasks()}
        await knock(started.port, (make_case(dice, requests) for _ in range(80)), dice)
        await eventually(lambda: len(asyncio.all_tasks()) <= len(before), 20, f"no task but {sorted(before)}")
