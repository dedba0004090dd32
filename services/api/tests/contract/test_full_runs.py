"""How many events a run may have: exact, whoever appends and wherever, and a full run can still end."""

import asyncio
import random
from typing import Any
from uuid import UUID, uuid4

import pytest

from juinie_api.app import serve
from juinie_api.core.append import Append, Appended, Ending, OneByOne
from juinie_api.core.finish import finish
from juinie_api.core.group import FLIGHTS, LARGE_EVENTS, Grouped
from juinie_api.core.lanes import RunLanes
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.settings import Settings
from juinie_shared.contracts.names import DEV_API_KEY
from juinie_shared.db.keys import ensure_dev_key
from juinie_shared.db.pool import Pool, open_pool
from juinie_shared.domain.errors import DatabaseBusy, RunFull
from juinie_shared.domain.events import NewEvent
from juinie_shared.domain.ids import RunId
from juinie_shared.domain.runs import RunStatus
from juinie_testkit.running import running
from juinie_testkit.seed import Seed, SeededKey

STORED = "SELECT array_agg(seq ORDER BY seq) AS seqs FROM run_event WHERE run_id = $1"
COMMITS = "SELECT count(DISTINCT xmin::text) AS n FROM run_event WHERE type = 'x'"


def check_full(answer: Any) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (409, 409, "run_full"), answer.text
    assert problem["type"] == "urn:juinie:problem:run_full"
    assert "retry-after" not in answer.headers
    assert "violated-policies" not in problem


async def last_seq(api: Any, run_id: str) -> int:
    return (await api.client.get(f"/v1/runs/{run_id}")).json()["last_seq"]


async def test_a_run_takes_as_many_events_as_it_may_and_no_more(api: Any):
    await api.seed.limit(api.key, events_per_run=5)
    run_id = (await api.create())["run_id"]
    assert (await api.append(run_id, "a", "b")).json()["last_seq"] == 4
    check_full(await api.append(run_id, "c", "d"))
    assert len(await api.events(run_id)) == 4
    assert (await api.append(run_id, "c")).json()["last_seq"] == 5
    for types in (("d",), ("d",) * 3, ("d",) * (LARGE_EVENTS + 1)):
        check_full(await api.append(run_id, *types))
    assert [event["seq"] for event in await api.events(run_id)] == [1, 2, 3, 4, 5]
    assert 'over_limit_total{code="run_full"} 4.0' in (await api.client.get("/metrics")).text


async def test_an_append_that_would_start_the_run_needs_room_for_that_too(api: Any):
    await api.seed.limit(api.key, events_per_run=2)
    run_id = (await api.create())["run_id"]
    check_full(await api.append(run_id))
    assert (await api.client.get(f"/v1/runs/{run_id}")).json()["status"] == "pending"
    body = {"events": [{"type": "x"}], "start": False}
    assert (await api.client.post(f"/v1/runs/{run_id}/events", json=body)).status_code == 201


async def test_a_full_run_can_be_claimed_cancelled_and_finished_with_its_last_events(api: Any):
    await api.seed.limit(api.key, events_per_run=1)
    await api.create()
    claimed = (await api.claim("agent")).json()
    run_id, lease = claimed["run"]["run_id"], {"Juinie-Lease": claimed["lease"]["token"]}
    check_full(await api.append(run_id, headers=lease))
    asked = await api.client.post(f"/v1/runs/{run_id}/cancel", json={"reason": "full"})
    assert (asked.status_code, asked.json()["last_seq"]) == (202, 3)
    last = [{"type": "x"}, {"type": "y"}]
    finished = await api.finish(run_id, headers=lease, events=last)
    assert (finished.status_code, finished.json()["status"]) == (200, "success")
    assert [event["type"] for event in await api.events(run_id)] == [
        "run.created", "run.started", "run.cancel_requested", "x", "y", "run.finished",
    ]  # fmt: skip


async def test_what_ends_a_run_goes_beyond_whatever_limit(pool: Pool):
    key = await Seed(pool).key()
    run_id = await Seed(pool).run(key, status="running")
    last = Append(run_id, key.tenant_id, events_of(3), events_per_run=1)
    finished = await finish(pool, alone_of(pool), last, Ending(RunStatus.ERROR, None, None))
    assert (finished.run.status, finished.run.last_seq) == (RunStatus.ERROR, 6)


async def test_a_full_run_that_waits_can_be_cancelled(api: Any):
    await api.seed.limit(api.key, events_per_run=1)
    run_id = (await api.create())["run_id"]
    answer = await api.client.post(f"/v1/runs/{run_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")


async def test_what_was_written_before_is_answered_again_when_the_run_is_full(api: Any):
    await api.seed.limit(api.key, events_per_run=4)
    run_id, key = (await api.create())["run_id"], {"Idempotency-Key": "k"}
    first = await api.append(run_id, "a", "b", headers=key)
    check_full(await api.append(run_id, "a"))
    again = await api.append(run_id, "a", "b", headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    other = await api.append(run_id, "c", headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_refused_append_leaves_its_key_free(api: Any):
    await api.seed.limit(api.key, events_per_run=3)
    run_id, key = (await api.create())["run_id"], {"Idempotency-Key": "k"}
    check_full(await api.append(run_id, "a", "b", headers=key))
    assert (await api.append(run_id, "c", headers=key)).status_code == 201


async def test_events_that_retention_removed_count(api: Any):
    await api.seed.limit(api.key, events_per_run=4)
    run_id = (await api.create())["run_id"]
    assert (await api.append(run_id, "a", "b")).status_code == 201
    await api.rows("DELETE FROM run_event WHERE run_id = $1", UUID(run_id))
    await api.rows("UPDATE run SET retained_from_seq = 5 WHERE run_id = $1", UUID(run_id))
    check_full(await api.append(run_id))


async def test_that_it_is_full_is_told_after_what_else_is_wrong(api: Any):
    await api.seed.limit(api.key, events_per_run=3)
    run_id = (await api.create())["run_id"]
    assert (await api.append(run_id)).status_code == 201
    lost = {"Juinie-Lease": "00000000-0000-4000-8000-000000000000"}
    assert (await api.append(run_id, headers=lost)).json()["code"] == "lease_lost"
    assert (await api.finish(run_id)).status_code == 200
    assert (await api.append(run_id)).json()["code"] == "run_finished"


async def test_a_refused_append_is_charged_no_events(api: Any):
    await api.seed.limit(api.key, events_per_run=2, events_per_minute=100)
    run_id = (await api.create())["run_id"]
    refused = await api.append(run_id, "a", "b", "c")
    check_full(refused)
    assert '"tenant-events";r=100;' in refused.headers["ratelimit"]


async def test_runs_of_another_tenant_have_their_own_limit_or_none(settings: Settings, pool: Pool, api: Any):
    other, free = await api.seed.key("b"), await api.seed.key("c")
    await api.seed.limit(other, "b", events_per_run=6)
    await api.seed.limit(free, "c", events_per_run=None)
    limited = Settings.model_validate({**settings.model_dump(), "max_events_per_run": 4, "env": "dev"})
    async with pool.connection() as connection:
        await ensure_dev_key(connection)
    async with running(serve, limited) as service:
        for key, room in ((api.key.text, 4), (other.text, 6), (free.text, None), (DEV_API_KEY, None)):
            client = api.client_of_service(service, SeededKey(key, api.key.tenant_id, api.key.key_id))
            async with client:
                run_id = (await client.post("/v1/runs", json={"agent": "a"})).json()["run_id"]
                for seq in range(3, 10):
                    answer = await client.post(f"/v1/runs/{run_id}/events", json={"events": [{"type": "x"}]})
                    if room is not None and seq > room:
                        check_full(answer)
                    else:
                        assert answer.json()["last_seq"] == seq


async def test_appends_at_two_apis_at_once_fill_a_run_to_the_last_event(settings: Settings, api: Any):
    """A machine that is busy may tell who comes at once with many to come again: they do, with their key."""
    await api.seed.limit(api.key, events_per_run=20)
    runs = [(await api.create())["run_id"] for _ in range(3)]
    theirs = await api.seed.key("b")
    other_run = str(await api.seed.run(theirs))
    async with (
        running(serve, settings) as second,
        api.client_of_service(second) as there,
        api.client_of(theirs) as stranger,
    ):

        async def append(client: Any, run_id: str) -> int:
            headers, body = {"Idempotency-Key": str(uuid4())}, {"events": [{"type": "x"}]}
            while True:
                answer = await client.post(f"/v1/runs/{run_id}/events", json=body, headers=headers)
                if answer.status_code != 503:
                    break
            if answer.status_code != 201:
                check_full(answer)
            return answer.status_code

        asked = [(client, run_id) for run_id in runs for client in (api.client, there) for _ in range(15)]
        answers, others = await asyncio.gather(
            asyncio.gather(*(append(*one) for one in asked)),
            asyncio.gather(*(append(stranger, other_run) for _ in range(30))),
        )
    assert answers.count(201) == 3 * 18
    assert set(others) == {201}
    for run_id in runs:
        assert (await api.rows(STORED, UUID(run_id)))[0]["seqs"] == list(range(1, 21))


@pytest.mark.parametrize("chosen", range(6))
async def test_flights_of_two_processes_never_pass_the_limit_and_refuse_nobody_who_fits(
    pool: Pool, database_url: str, chosen: int
):
    """Each has a pool of its own, as processes have. Of what was refused nothing would fit behind what is there in the end,
    with the start of a run that nobody could start.
    """
    chance, seed = random.Random(chosen), Seed(pool)
    key = await seed.key()
    runs = [await seed.run(key, status=chance.choice(["pending", "running"])) for _ in range(8)]
    limits = {run_id: chance.choice([None, 2, 3, 17, 60]) for run_id in runs}
    appends = [
        Append(run_id, key.tenant_id, events_of(chance.randint(1, 4)), events_per_run=limits[run_id])
        for run_id in chance.choices(runs, k=400)
    ]
    other = await open_pool(database_url, "other")
    appenders = [Grouped(each, alone_of(each), lambda: None) for each in (pool, other)]
    flying = [asyncio.create_task(one.fly()) for one in appenders for _ in range(FLIGHTS)]
    try:
        answers = await asyncio.gather(
            *(commit(chance.choice(appenders), append) for append in appends), return_exceptions=True
        )
    finally:
        for task in flying:
            task.cancel()
        await asyncio.wait(flying)
        await other.close()
    for run_id, limit in limits.items():
        seen = [(a, b) for a, b in zip(appends, answers, strict=True) if a.run_id == run_id]
        taken = [b for _, b in seen if isinstance(b, Appended)]
        refused = [len(a.events) for a, b in seen if isinstance(b, RunFull)]
        assert len(taken) + len(refused) == len(seen)
        stored = await seqs_of(pool, run_id)
        assert stored == list(range(1, len(stored) + 1))
        assert {b.last_seq for b in taken} <= set(stored)
        if limit is None:
            assert refused == []
        else:
            assert len(stored) <= limit
            started = len(stored) > 1
            assert all(len(stored) + (not started) + size > limit for size in refused)


async def test_a_run_that_is_nearly_full_goes_alone_and_the_others_fly(pool: Pool):
    key = await Seed(pool).key()
    nearly, *others = [await Seed(pool).run(key, status="running") for _ in range(11)]
    appends = [
        *(Append(nearly, key.tenant_id, events_of(1), events_per_run=4) for _ in range(3)),
        *(Append(run_id, key.tenant_id, events_of(1), events_per_run=4) for run_id in others),
    ]
    landed = list[int]()
    appender = Grouped(pool, alone_of(pool), lambda: None, landed.append)
    waiting = [asyncio.create_task(appender.commit(append)) for append in appends]
    await asyncio.sleep(0)
    flying = asyncio.create_task(appender.fly())
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    flying.cancel()
    assert landed == [10]
    assert sum(isinstance(answer, RunFull) for answer in answers) == 1
    assert len(await seqs_of(pool, nearly)) == 4
    async with pool.connection() as connection:
        assert (await connection.fetch(COMMITS))[0]["n"] == 3


async def commit(appender: Grouped, append: Append) -> Appended:
    """However long a busy machine takes: who is told to come again does."""
    while True:
        try:
            return await appender.commit(append)
        except DatabaseBusy:  # nothing was written
            pass


def events_of(count: int) -> list[NewEvent]:
    return [NewEvent("x", "1")] * count


def alone_of(pool: Pool) -> OneByOne:
    return OneByOne(TenantPools(pool, 6), RunLanes(60), lambda: None)


async def seqs_of(pool: Pool, run_id: RunId) -> list[int]:
    async with pool.connection() as connection:
        return (await connection.fetch(STORED, run_id))[0]["seqs"]
