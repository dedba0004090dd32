"""What an append stores, who may append, and that concurrent writers share one run without a gap."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID, uuid4

import pytest

from juinie_api.core.patience import LOCK_SECONDS
from juinie_testkit.waits import eventually


async def test_event_json_goes_out_as_it_came_in(api: Any):
    run_id = (await api.create())["run_id"]
    data = rb'{"b":9007199254740993,"a":[1.0,1e400,-0],"u":"\u0000\ud83d\ude00 \/","a":"twice"}'
    body = b'{"events":[{"type":"x","data": ' + data.replace(b",", b" ,\n ") + b'},{"type":"y"}]}'
    answer = await api.client.post(
        f"/v1/runs/{run_id}/events", content=body, headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert answer.status_code == 201, answer.text
    page = await api.client.get(f"/v1/runs/{run_id}/events")
    assert b'"data":' + data + b"}" in page.content
    assert b'"type":"y"' in page.content
    assert page.content.endswith(
        b'"data":null}],"next_after_seq":4,"last_seq":4,"up_to_date":true,"finished":false,"reset":false}'
    )


async def test_runs_keep_their_json_too(api: Any):
    body = rb'{"agent":"a","input":{"n":1e400},"metadata":{"z":1.0,"a":"\u0000"}}'
    headers = {"Content-Type": "application/json"}
    created = await api.client.post("/v1/runs", content=body, headers=headers)
    assert rb'"input":{"n":1e400}' in created.content
    assert rb'"metadata":{"z":1.0,"a":"\u0000"}' in created.content
    finish = b'{"status":"error","output":1.0,"error":{"code":1e1}}'
    path = f"/v1/runs/{created.json()['run_id']}/finish"
    finished = await api.client.post(path, content=finish, headers=headers)
    assert b'"output":1.0,"error":{"code":1e1}' in finished.content


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
async def test_first_and_last_moment_of_the_calendar_are_times_like_others(api: Any, time: str):
    run_id = (await api.create())["run_id"]
    answer = await api.client.post(
        f"/v1/runs/{run_id}/events", json={"events": [{"type": "x", "time": time}]}
    )
    assert answer.status_code == 201, answer.text
    assert (await api.events(run_id))[-1]["time"] == time


async def test_a_clients_time_is_kept_and_shown_in_utc(api: Any):
    run_id = (await api.create())["run_id"]
    body = {"events": [{"type": "x", "time": "2026-11-23T13:00:00.5+01:00"}]}
    await api.client.post(f"/v1/runs/{run_id}/events", json=body)
    assert (await api.events(run_id))[-1]["time"] == "2026-11-23T12:00:00.500000Z"


async def test_each_append_leaves_one_outbox_row_with_its_range_and_size(api: Any):
    run_id = (await api.create())["run_id"]
    await api.append(run_id, "a", "b", "c")
    await api.append(run_id, "d")
    rows = await api.rows(
        "SELECT o.*, r.shard AS run_shard FROM outbox o JOIN run r USING (run_id) ORDER BY id"
    )
    assert [(row["first_seq"], row["last_seq"]) for row in rows] == [(1, 1), (2, 5), (6, 6)]
    assert all(row["shard"] == row["run_shard"] and row["bytes"] > 0 for row in rows)


async def test_a_lost_lease_is_refused_and_none_at_all_is_welcome(api: Any):
    run_id, token = (await api.create())["run_id"], uuid4()
    await api.append(run_id)
    await api.rows(
        "UPDATE run SET lease_token = $1, lease_seconds = 30, lease_expires_at = '2026-01-01'", token
    )
    assert (await api.append(run_id, headers={"Juinie-Lease": str(token)})).status_code == 201
    [row] = await api.rows("SELECT lease_expires_at > clock_timestamp() AS renewed FROM run")
    assert row["renewed"]
    for lost in (str(uuid4()), "rubbish", "", "00000000-0000-0000-0000-000000000000"):
        for refused in (
            await api.append(run_id, headers={"Juinie-Lease": lost}),
            await api.finish(run_id, headers={"Juinie-Lease": lost}),
        ):
            assert (refused.status_code, refused.json()["code"]) == (409, "lease_lost")
    assert (await api.append(run_id)).status_code == 201
    assert (await api.finish(run_id, headers={"Juinie-Lease": str(token)})).status_code == 200


async def test_fifty_writers_share_a_run_without_a_gap(api: Any):
    run_id = (await api.create())["run_id"]

    async def write(writer: int) -> list[int]:
        taken = list[int]()
        for _ in range(4):
            answer = await api.append(run_id, f"w{writer}", f"w{writer}")
            assert answer.status_code == 201, answer.text
            taken += range(answer.json()["first_seq"], answer.json()["last_seq"] + 1)
        return taken

    taken = await asyncio.gather(*(write(writer) for writer in range(50)))
    assert sorted(seq for seqs in taken for seq in seqs) == list(range(3, 403))
    events = await api.events(run_id, limit=1000)
    assert [event["seq"] for event in events] == list(range(1, 403))
    assert [event["type"] for event in events].count("run.started") == 1
    for writer, seqs in enumerate(taken):
        assert {events[seq - 1]["type"] for seq in seqs} == {f"w{writer}"}
    rows = await api.rows("SELECT first_seq, last_seq FROM outbox ORDER BY id")
    ranges = [seq for row in rows for seq in range(row["first_seq"], row["last_seq"] + 1)]
    assert ranges == list(range(1, 403)), "outbox order is seq order"


@pytest.mark.parametrize("attempt", range(5))
async def test_nothing_comes_after_the_end_however_it_races(api: Any, attempt: int):
    run_id = (await api.create())["run_id"]
    appends = [api.append(run_id) for _ in range(20)]
    *answers, finished = await asyncio.gather(
        *appends[:10], *appends[10:], api.finish(run_id, output=attempt)
    )
    assert finished.status_code == 200
    assert {answer.status_code for answer in answers} <= {201, 409}
    events = await api.events(run_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "run.finished"
    assert sum(event["type"] == "x" for event in events) == sum(
        answer.status_code == 201 for answer in answers
    )


async def test_one_of_two_different_ends_wins(api: Any):
    run_id = (await api.create())["run_id"]
    answers = await asyncio.gather(*(api.finish(run_id, output=n) for n in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    assert [event["type"] for event in await api.events(run_id)] == [
        "run.created",
        "run.started",
        "run.finished",
    ]


async def test_cancel_and_finish_may_race(api: Any):
    run_id = (await api.create())["run_id"]
    await api.append(run_id)
    cancels = [api.client.post(f"/v1/runs/{run_id}/cancel") for _ in range(10)]
    *answers, finished = await asyncio.gather(*cancels, api.finish(run_id))
    assert finished.status_code == 200
    assert {answer.status_code for answer in answers} <= {200, 202}
    types = [event["type"] for event in await api.events(run_id)]
    assert types.count("run.cancel_requested") <= 1
    assert types[-1] == "run.finished"


async def test_a_locked_run_is_refused_in_time_and_no_other_waits(api: Any):
    locked, free = (await api.create())["run_id"], (await api.create())["run_id"]
    async with api.pool.transaction() as tx:
        await tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await tx.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", UUID(locked))
        waiting = asyncio.create_task(api.append(locked))
        assert (await api.append(free)).status_code == 201
        refused = await waiting
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
        503,
        "run_locked",
        "1",
    )
    assert (await api.append(locked)).json()["first_seq"] == 3, "nothing of the refused one was left"


async def test_a_run_that_is_locked_for_longer_than_one_try_is_waited_for(api: Any):
    run_id = (await api.create())["run_id"]
    async with api.pool.transaction() as tx:
        await tx.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", UUID(run_id))
        waiting = asyncio.create_task(api.append(run_id))
        await asyncio.sleep(1.5 * LOCK_SECONDS)
    assert (await waiting).status_code == 201


def append(api: Any, run_id: str) -> Any:
    return api.append(run_id)


def beat(api: Any, run_id: str) -> Any:
    return api.client.post(f"/v1/runs/{run_id}/heartbeat", headers={"Juinie-Lease": str(uuid4())})


def cancel(api: Any, run_id: str) -> Any:
    return api.client.post(f"/v1/runs/{run_id}/cancel")


def delete(api: Any, run_id: str) -> Any:
    return api.client.delete(f"/v1/runs/{run_id}")


def republish(api: Any, run_id: str) -> Any:
    return api.client.post(f"/v1/admin/runs/{run_id}/republish", json={"from_seq": 1, "to_seq": 1})


@pytest.mark.parametrize("ask", [append, beat, cancel, delete, republish])
async def test_many_who_want_a_locked_run_take_no_connection_from_the_others(api: Any, ask: Any):
    locked, free = (await api.create())["run_id"], (await api.create())["run_id"]
    async with api.pool.transaction() as tx:
        await tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await tx.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", UUID(locked))
        writers = [asyncio.create_task(ask(api, locked)) for _ in range(30)]
        others = [await api.append(free) for _ in range(20)]
        ready = await api.client.get("/readyz")
        refused = await asyncio.gather(*writers)
    assert {answer.status_code for answer in others} == {201}
    assert ready.status_code == 200
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "run_locked")}
    assert (await api.append(locked)).json()["first_seq"] == 3, "nothing of the refused ones was left"


async def test_appends_touch_no_index_of_the_run(api: Any):
    """`due_at` is indexed, and an append to a run that has started leaves it alone: every update of the row is HOT."""
    run_id = (await api.create())["run_id"]
    await api.append(run_id)
    await eventually(lambda: _updates_of_runs(api, 1), 30, "the start is counted")
    all_before, hot_before = await _updates_of_runs(api, 1)
    for _ in range(20):
        assert (await api.append(run_id)).status_code == 201
    all_after, hot_after = await eventually(
        lambda: _updates_of_runs(api, all_before + 20), 30, "the appends are counted"
    )
    assert (all_after - all_before, hot_after - hot_before) == (20, 20)


async def _updates_of_runs(api: Any, at_least: int) -> tuple[int, int] | None:
    """Updates of the table, and how many were HOT; None before there are so many. Sessions tell them when idle."""
    (row,) = await api.rows("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'run'")
    return (row["n_tup_upd"], row["n_tup_hot_upd"]) if row["n_tup_upd"] >= at_least else None


async def test_a_body_that_takes_its_time_leaves_as_much_for_the_database(
    api: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("juinie_api.core.patience.SECONDS", 4.0)
    run_id = (await api.create())["run_id"]

    async def slow() -> AsyncGenerator[bytes]:
        yield b'{"events": '
        await asyncio.sleep(3.8)
        yield b'[{"type": "x"}]}'

    headers = {"Content-Type": "application/json"}
    answer = await api.client.post(f"/v1/runs/{run_id}/events", content=slow(), headers=headers)
    assert answer.status_code == 201, answer.text
