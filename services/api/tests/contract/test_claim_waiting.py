"""Workers that wait for a run: woken when there is one, one for each, and next to free while there is none."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from juinie_api import app
from juinie_api.core import desk, wanted
from juinie_shared.contracts.names import PENDING_CHANNEL
from juinie_testkit.running import running
from juinie_testkit.waits import eventually


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many statements claims and looks have run, in all apis of this process."""
    count = Counter[str]()

    def counted(name: str) -> Any:
        statement = getattr(app, name)

        async def run(*values: Any) -> Any:
            count[name] += 1
            return await statement(*values)

        return run

    for name in ("claim_run", "find_pending"):
        monkeypatch.setattr(app, name, counted(name))
    return count


def waiting(api: Any, workers: int, *agents: str, seconds: float = 30) -> list[asyncio.Task[httpx.Response]]:
    return [
        asyncio.create_task(api.claim(*(agents or ("agent",)), worker_id=f"w{n}", wait_seconds=seconds))
        for n in range(workers)
    ]


@pytest.fixture
def looks_on_demand(monkeypatch: pytest.MonkeyPatch) -> float:
    """An api that starts now looks for runs when it is told to, and not by itself. The pause between looks that it has else, in seconds."""
    usual = desk.POLL_SECONDS
    monkeypatch.setattr(desk, "POLL_SECONDS", 3_600.0)
    return usual


async def test_two_hundred_idle_workers_cost_a_few_queries(
    looks_on_demand: float, monkeypatch: pytest.MonkeyPatch, queries: Counter[str], api: Any
):
    """They come between two looks, however long that takes: who comes while one is under way may be tried for once more."""
    first = waiting(api, 1, "other")
    await api.until_waiting(1)
    await api.rows(f"NOTIFY {PENDING_CHANNEL}")
    await eventually(lambda: queries["find_pending"], 20, "a look: the api listens")
    assert (await api.claim("agent")).status_code == 204
    queries.clear()
    workers = waiting(api, 199)
    await api.until_waiting(200)
    looks = queries["find_pending"]
    monkeypatch.setattr(desk, "POLL_SECONDS", looks_on_demand)
    await api.rows(f"NOTIFY {PENDING_CHANNEL}")
    await eventually(
        lambda: queries["find_pending"] == looks + 3, 20, "three more looks, a second or more between them"
    )
    assert queries["claim_run"] <= 3
    await api.service.stop()
    assert {(await worker).status_code for worker in [*first, *workers]} == {204}
    assert queries["claim_run"] <= 3


async def test_a_new_run_wakes_one_worker_of_those_it_is_for(queries: Counter[str], api: Any):
    workers, others = waiting(api, 20), waiting(api, 5, "other")
    await api.until_waiting(25)
    for agent in ("agent", "other"):
        assert (await api.claim(agent)).status_code == 204, "none: the tries of those who came are over"
    queries.clear()
    run_id = (await api.create())["run_id"]
    await eventually(lambda: any(worker.done() for worker in workers), 20, "a worker with a run")
    await api.until_waiting(24)
    [woken] = [worker.result() for worker in [*workers, *others] if worker.done()]
    assert woken.json()["run"]["run_id"] == run_id
    assert queries["claim_run"] <= 2, "one for the run, and one that found that there is no other"
    await api.service.stop()
    await asyncio.gather(*workers, *others)


async def test_who_came_first_is_served_first(api: Any):
    workers = list[asyncio.Task[httpx.Response]]()
    for number in range(3):
        workers += waiting(api, 1)
        await api.until_waiting(number + 1)
    for worker in workers:
        run_id = (await api.create())["run_id"]
        assert (await worker).json()["run"]["run_id"] == run_id


async def test_runs_that_come_together_go_to_as_many_workers(api: Any, settings: Any):
    """At two apis: what is committed at one is heard at the other."""
    async with running(app.serve, settings) as other:
        body = {"agents": ["agent"], "worker_id": "w", "wait_seconds": 30}
        for url in (api.service.url, other.url):
            assert (await api.client.get(f"{url}/v1/runs")).status_code == 200
        workers = [
            asyncio.create_task(api.client.post(f"{url}/v1/claims", json=body))
            for url in (api.service.url, other.url)
            for _ in range(20)
        ]
        await api.until_waiting(20)
        made = await asyncio.gather(*(api.create() for _ in range(40)))
        answers = await asyncio.gather(*workers)
    assert {answer.status_code for answer in answers} == {200}
    taken = [answer.json()["run"]["run_id"] for answer in answers]
    assert sorted(taken) == sorted(run["run_id"] for run in made)


async def test_a_run_that_is_put_back_wakes_a_worker(api: Any):
    claimed = (await api.claim_new()).json()["run"]
    [worker] = waiting(api, 1)
    await api.until_waiting(1)
    await api.lose_lease(claimed["run_id"])
    await api.rows(f"NOTIFY {PENDING_CHANNEL}")
    assert (await worker).json()["lease"]["attempt"] == 2


async def test_a_lost_notification_costs_no_more_than_a_look(api: Any):
    [worker] = waiting(api, 1)
    await api.until_waiting(1)
    await api.rows(
        """INSERT INTO run (run_id, tenant_id, shard, agent, last_seq, idle_timeout_seconds, deadline_at, fingerprint)
           VALUES (gen_random_uuid(), $1, 0, 'agent', 0, 60, clock_timestamp() + interval '1 day', '')""",
        api.key.tenant_id,
    )
    assert (await worker).status_code == 200


async def test_a_stopping_api_lets_its_workers_go_at_once(api: Any):
    workers = waiting(api, 20)
    await api.until_waiting(20)
    await api.service.stop(timeout_seconds=10)
    assert {(await worker).status_code for worker in workers} == {204}


async def test_no_run_is_taken_for_a_worker_that_has_left(api: Any):
    _, writer = await asyncio.open_connection("127.0.0.1", api.service.port)
    body = json.dumps({"agents": ["agent"], "worker_id": "gone", "wait_seconds": 30}).encode()
    head = f"POST /v1/claims HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key.text}\r\n"
    writer.write(
        f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    await api.until_waiting(1)
    [worker] = waiting(api, 1)
    await api.until_waiting(2)
    writer.close()
    await writer.wait_closed()
    run_id = (await api.create())["run_id"]
    assert (await worker).json()["run"]["run_id"] == run_id
    rows = await api.rows("SELECT lease_worker_id FROM run WHERE run_id = $1", UUID(run_id))
    assert rows[0]["lease_worker_id"] == "w0"
    await api.until_waiting(0)


async def test_workers_that_wait_hold_no_connection(api: Any):
    workers = waiting(api, 50)
    await api.until_waiting(50)
    run_id = (await api.create(agent="other"))["run_id"]
    answers = await asyncio.gather(*(api.append(run_id) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    await api.service.stop()
    assert {(await worker).status_code for worker in workers} == {204}


async def test_a_tenant_waits_for_the_runs_of_so_many_agents_and_no_more(
    monkeypatch: pytest.MonkeyPatch, api: Any
):
    monkeypatch.setattr(wanted, "TENANT_PAIRS", 3)
    workers = waiting(api, 2, "a", "b", "c")
    await api.until_waiting(2)
    refused = await api.claim("d", wait_seconds=30)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_waiting")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await api.claim("d")).status_code == 204, "who does not wait takes no place"
    async with api.client_of(await api.seed.key("b")) as other:
        run_id = (await other.post("/v1/runs", json={"agent": "d"})).json()["run_id"]
        claim = {"agents": ["d"], "worker_id": "w", "wait_seconds": 30}
        assert (await other.post("/v1/claims", json=claim)).json()["run"]["run_id"] == run_id
    await api.service.stop()
    assert {(await worker).status_code for worker in workers} == {204}


async def test_a_batch_that_the_database_refuses_is_not_another_tenants_failure(
    monkeypatch: pytest.MonkeyPatch, api: Any
):
    """A look that takes too long is given up by the server, for its own agents alone."""
    monkeypatch.setattr(wanted, "BATCH_PAIRS", 1)
    look, slow = app.find_pending, api.key.tenant_id

    async def find_pending(pool: Any, pairs: Any) -> Any:
        async with pool.connection() as connection:
            if any(tenant_id == slow for tenant_id, _ in pairs):
                await connection.execute("SET statement_timeout = 1; SELECT pg_sleep(1)")
        return await look(pool, pairs)

    monkeypatch.setattr(app, "find_pending", find_pending)
    workers = waiting(api, 1)
    await api.until_waiting(1)
    async with api.client_of(await api.seed.key("b")) as other:
        claim = {"agents": ["d"], "worker_id": "w", "wait_seconds": 30}
        theirs = asyncio.create_task(other.post("/v1/claims", json=claim))
        await api.until_waiting(2)
        run_id = (await other.post("/v1/runs", json={"agent": "d"})).json()["run_id"]
        assert (await theirs).json()["run"]["run_id"] == run_id
    await api.service.stop()
    await asyncio.gather(*workers)


async def test_the_text_of_a_claim_is_not_kept_while_its_worker_waits(api: Any):
    worker = asyncio.create_task(api.claim("agent", worker_id="a-worker-to-look-for", wait_seconds=30))
    await api.until_waiting(1)
    kept = [
        value for task in asyncio.all_tasks() if task is not worker for value in locals_of(task)
        if isinstance(value, bytes | bytearray) and b"a-worker-to-look-for" in value
    ]  # fmt: skip
    assert kept == []
    await api.service.stop()
    assert (await worker).status_code == 204


def locals_of(task: asyncio.Task[Any]) -> Iterator[object]:
    """What the coroutines hold that this task has called, one from within the other."""
    called: Any = task.get_coro()
    while frame := getattr(called, "cr_frame", None):
        for value in frame.f_locals.values():
            yield from value if isinstance(value, tuple) else (value,)
        called = called.cr_await
