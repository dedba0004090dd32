"""Administration: the outbox's depth, the pause, dead letters, and records sent again."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from juinie_api.core.append import Append, write
from juinie_api.store import claims, outbox, runs
from juinie_shared.contracts.names import DUTIES_CHANNEL, OUTBOX_CHANNEL
from juinie_shared.db.pool import connect
from juinie_shared.domain.events import NewEvent
from juinie_shared.domain.ids import SHARDS, new_uuid7, shard_of
from juinie_testkit.raw_stream import connect_raw
from juinie_testkit.waits import eventually

OUTBOX = "/v1/admin/outbox"
DEAD = f"{OUTBOX}/dead-letters"
ROWS = "SELECT run_id, first_seq, last_seq, bytes, traceparent, shard FROM outbox ORDER BY id"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PARK = """
    INSERT INTO dead_letter (tenant_id, run_id, first_seq, last_seq, shard, reason, traceparent)
    SELECT tenant_id, run_id, $2, $2, shard, 'message_too_large', $3 FROM run WHERE run_id = $1 RETURNING id
"""


async def park(api: Any, run_id: object, seq: int) -> int:
    return (await api.rows(PARK, run_id, seq, TRACE))[0]["id"]


async def ranges(api: Any) -> list[tuple[Any, ...]]:
    return [(row["run_id"], row["first_seq"], row["last_seq"]) for row in await api.rows(ROWS)]


async def emptied(api: Any) -> None:
    await api.rows("DELETE FROM outbox")


async def test_depth_tells_what_waits_in_each_shard_and_who_relays_it(api: Any):
    run = await api.seed.run(api.key)
    await api.seed.append(run, ("x", 1))
    shard = shard_of(run)
    await api.rows("UPDATE outbox SET created_at = created_at - interval '1 minute' WHERE first_seq = 1")
    publisher = new_uuid7()
    await api.rows("INSERT INTO publisher (publisher_id, name) VALUES ($1, 'host:1')", publisher)
    await api.rows(
        "UPDATE duty SET publisher_id = $1, expires_at = clock_timestamp() + interval '1 minute'", publisher
    )
    other = (shard + 1) % SHARDS
    await api.rows("UPDATE duty SET expires_at = clock_timestamp() - interval '1 s' WHERE shard = $1", other)
    depth = (await api.client.get(OUTBOX)).json()
    assert (depth["pending"], depth["paused"]) == (2, False)
    assert 60 <= depth["oldest_age_seconds"] < 120
    assert [one["shard"] for one in depth["shards"]] == list(range(SHARDS))
    mine, empty = depth["shards"][shard], depth["shards"][other]
    assert (mine["pending"], mine["publisher"]) == (2, "host:1")
    assert mine["oldest_age_seconds"] == depth["oldest_age_seconds"]
    assert empty == {"shard": other, "pending": 0, "oldest_age_seconds": 0.0, "publisher": None}


FILL = """
    INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes)
    SELECT n % 64, $1, 1, 1, 1 FROM generate_series(0, 127999) AS n
"""
READ = """
    SELECT coalesce(sum(seq_tup_read), 0)::int + coalesce(sum(idx_tup_fetch), 0)::int AS rows
    FROM pg_stat_xact_user_tables WHERE relname = 'outbox'
"""


@pytest.mark.parametrize("planned", ["while it was short", "when it had grown"])
async def test_depth_of_a_long_outbox_is_estimated_and_a_few_rows_of_it_are_read(api: Any, planned: str):
    run = await api.seed.run(api.key)
    await api.rows("ALTER TABLE outbox SET (autovacuum_enabled = off)")
    if planned == "while it was short":
        await api.rows("VACUUM ANALYZE outbox")  # with its one row
    async with api.pool.transaction() as tx:
        await tx.execute(outbox.BY_INDEX_ALONE)
        if planned == "while it was short":
            for _ in range(6):  # from here on the statement has one plan for good
                assert sum(row["pending"] for row in await tx.fetch(outbox.DEPTH, 600)) == 1
        await tx.execute("DELETE FROM outbox")
        await tx.execute(FILL, run)
        await tx.execute("DELETE FROM outbox WHERE shard = 1 AND id > (SELECT min(id) + 64 * 49 FROM outbox)")
        before = (await tx.fetchrow(READ))["rows"]
        pending = [row["pending"] for row in await tx.fetch(outbox.DEPTH, 600)]
        assert pending == [2000, 49, *[2000] * 62]
        assert (await tx.fetchrow(READ))["rows"] - before < 64 * 610


async def test_pause_and_resume_are_kept_and_said(api: Any):
    for path, paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        answer = await api.client.post(f"{OUTBOX}/{path}")
        assert (answer.status_code, answer.json()["paused"]) == (202, paused)
        assert answer.json().keys() == {"pending", "oldest_age_seconds", "paused", "shards"}
        assert (await api.client.get(OUTBOX)).json()["paused"] is paused
    assert (await api.client.post(f"{OUTBOX}/pause", json={})).status_code == 202


async def test_dead_letters_are_listed_the_newest_first_in_pages(api: Any):
    run = await api.seed.run(api.key)
    ids = [await park(api, run, seq) for seq in (1, 2, 3, 4, 5)]
    seen, cursor = list[Any](), None
    for _ in range(3):
        page = (
            await api.client.get(DEAD, params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        ).json()
        seen += page["items"]
        cursor = page["next_cursor"]
    assert cursor is None
    assert [item["id"] for item in seen] == ids[::-1]
    created_at = seen[0].pop("created_at")
    assert seen[0] == {
        "id": ids[-1], "run_id": str(run), "first_seq": 5, "last_seq": 5, "reason": "message_too_large",
    }  # fmt: skip
    assert datetime.fromisoformat(created_at).tzinfo is not None


async def test_requeued_dead_letter_is_an_outbox_row_again_with_its_own_trace(api: Any):
    run = await api.seed.run(api.key)
    await api.seed.append(run, ("x", "abc"))
    await emptied(api)
    letter = await park(api, run, 2)
    answer = await api.client.post(f"{DEAD}/{letter}/requeue")
    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in ("id", "run_id", "first_seq", "last_seq")} == {
        "id": letter, "run_id": str(run), "first_seq": 2, "last_seq": 2,
    }  # fmt: skip
    (row,) = await api.rows(ROWS)
    assert tuple(row.values()) == (run, 2, 2, len('"abc"'), TRACE, shard_of(run))
    assert (await api.client.get(DEAD)).json()["items"] == []
    assert (await api.client.post(f"{DEAD}/{letter}/requeue")).status_code == 404


async def test_discarded_dead_letter_is_gone_and_its_event_is_not(api: Any):
    run = await api.seed.run(api.key)
    await emptied(api)
    letter = await park(api, run, 1)
    answer = await api.client.post(f"{DEAD}/{letter}/discard")
    assert (answer.status_code, answer.json()["id"]) == (200, letter)
    assert await api.rows(ROWS) == []
    assert (await api.client.post(f"{DEAD}/{letter}/discard")).status_code == 404
    assert len(await api.events(str(run))) == 1


@pytest.mark.parametrize("verb", ["requeue", "discard"])
async def test_anothers_dead_letter_is_none(api: Any, verb: str):
    run = await api.seed.run(api.key)
    letter = await park(api, run, 1)
    async with api.client_of(await api.seed.key("b")) as foreign:
        assert (await foreign.get(DEAD)).json() == {"items": [], "next_cursor": None}
        theirs = await foreign.post(f"{DEAD}/{letter}/{verb}")
        nobodys = await foreign.post(f"{DEAD}/{letter + 999}/{verb}")
    assert (theirs.status_code, theirs.json()["code"]) == (404, "dead_letter_not_found")
    assert theirs.json() | {"trace_id": ""} == nobodys.json() | {"trace_id": ""}
    assert len((await api.client.get(DEAD)).json()["items"]) == 1


@pytest.mark.parametrize(
    "letter",
    ["x", "-1", "1.5", "٣", "9" * 19, "9" * 18, "%20", "1e3", "0193a1b2-0000-7000-8000-000000000001"],
)
async def test_dead_letter_id_that_is_no_number_is_none(api: Any, letter: str):
    answer = await api.client.post(f"{DEAD}/{letter}/requeue")
    assert (answer.status_code, answer.json()["code"]) == (404, "dead_letter_not_found")


async def test_range_of_a_run_goes_again_with_the_trace_of_the_request(api: Any):
    run = await api.seed.run(api.key)
    await api.seed.append(run, *[("x", "ab")] * 9, traceparent="00-1-2-01")
    await emptied(api)
    answer = await api.client.post(
        f"/v1/admin/runs/{run}/republish", json={"from_seq": 3, "to_seq": 7}, headers={"traceparent": TRACE}
    )
    assert (answer.status_code, answer.json()) == (202, {"records": 5})
    (row,) = await api.rows(ROWS)
    assert (row["run_id"], row["first_seq"], row["last_seq"], row["bytes"]) == (run, 3, 7, 5 * len('"ab"'))
    assert row["traceparent"].split("-")[1] == TRACE.split("-")[1]
    assert row["shard"] == shard_of(run)


async def test_only_what_is_kept_goes_again(api: Any):
    run = await api.seed.run(api.key)
    await api.seed.append(run, *[("x", 1)] * 9)
    await api.rows("DELETE FROM run_event WHERE run_id = $1 AND seq < 4", run)
    await api.rows("UPDATE run SET retained_from_seq = 4 WHERE run_id = $1", run)
    await emptied(api)
    for body, records in (
        ({"from_seq": 1, "to_seq": 99}, 7), ({"from_seq": 1, "to_seq": 3}, 0), ({"from_seq": 11, "to_seq": 12}, 0),
    ):  # fmt: skip
        answer = await api.client.post(f"/v1/admin/runs/{run}/republish", json=body)
        assert (answer.status_code, answer.json()) == (202, {"records": records})
    assert await ranges(api) == [(run, 4, 10)]


async def test_long_run_goes_again_in_rows_of_bounded_size(api: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("juinie_api.core.republish.DEEP_EVENTS", 10_000)
    run = await api.seed.run(api.key)
    for _ in range(7):
        await api.seed.append(run, *[("x", "y" * 100)] * 1000)
    await api.seed.append(run, *[("x", "y" * 400_000)] * 6)
    await emptied(api)
    answer = await api.client.post(f"/v1/admin/runs/{run}/republish", json={"from_seq": 1, "to_seq": 10**9})
    assert answer.json() == {"records": 7007}
    rows = await ranges(api)
    assert [first for _, first, _ in rows] == [1, *(last + 1 for _, _, last in rows[:-1])]
    assert rows[-1][2] == 7007
    assert max(last - first + 1 for _, first, last in rows) == 500
    sizes = [row["bytes"] for row in await api.rows(ROWS)]
    assert 1024 * 1024 < max(sizes) < 1024 * 1024 + 400_010, (
        "a row is full with the event that passes its limit"
    )


async def test_runs_created_within_a_time_go_again_whole(api: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("juinie_api.core.republish.PAGE_RUNS", 3)
    runs = [await api.seed.run(api.key) for _ in range(9)]
    foreign = await api.seed.run("b")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for hour, run in enumerate([*runs, foreign]):
        moment = start + timedelta(hours=hour if run != foreign else 5)
        await api.rows("UPDATE run SET created_at = $2 WHERE run_id = $1", run, moment)
        await api.seed.append(run, ("x", 1), ("x", 2))
    await api.seed.delete(runs[4])
    await emptied(api)
    body = {"created_after": "2026-01-01T00:30:00Z", "created_before": "2026-01-01T07:00:00+00:00"}
    answer = await api.client.post("/v1/admin/republish", json=body)
    assert (answer.status_code, answer.json()) == (202, {"records": 15})
    assert await ranges(api) == [(run, 1, 3) for run in (*runs[1:4], *runs[5:7])]


async def test_many_runs_of_one_moment_go_again_each_once(api: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("juinie_api.core.republish.PAGE_RUNS", 4)
    monkeypatch.setattr("juinie_api.core.republish.STATEMENT_SEQS", 3)
    runs = sorted([await api.seed.run(api.key) for _ in range(10)])
    await api.rows("UPDATE run SET created_at = '2026-01-01T00:00:00Z'")
    await emptied(api)
    body = {"created_after": "2025-12-31T00:00:00Z", "created_before": "2026-01-02T00:00:00Z"}
    assert (await api.client.post("/v1/admin/republish", json=body)).json() == {"records": 10}
    assert await ranges(api) == [(run, 1, 1) for run in runs]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements of two events, and an outbox that is deep with two."""
    monkeypatch.setattr("juinie_api.core.republish.STATEMENT_SEQS", 2)
    monkeypatch.setattr("juinie_api.core.republish.DEEP_EVENTS", 2)


async def five_events(api: Any) -> Any:
    run = await api.seed.run(api.key)
    await api.seed.append(run, *[("x", 1)] * 4)
    await emptied(api)
    return run


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("path", ["/v1/admin/runs/{run}/republish", "/v1/admin/republish"])
async def test_republishing_goes_on_when_what_it_wrote_has_been_sent(api: Any, path: str):
    run = await five_events(api)
    body = (
        {"from_seq": 1, "to_seq": 5}
        if "{run}" in path
        else {"created_after": MOMENT, "created_before": "2100-01-01T00:00:00Z"}
    )
    asked = asyncio.create_task(api.client.post(path.format(run=run), json=body))
    for expected in ([(run, 1, 2)], [(run, 3, 4)], [(run, 5, 5)]):
        await eventually(lambda: ranges(api), 10, "the next rows")
        assert await ranges(api) == expected
        await emptied(api)
    assert (await asked).json() == {"records": 5}


@pytest.mark.usefixtures("small")
async def test_republishing_waits_for_no_relay_that_is_paused(api: Any):
    run = await five_events(api)
    await api.client.post(f"{OUTBOX}/pause")
    asked = await api.client.post(f"/v1/admin/runs/{run}/republish", json={"from_seq": 1, "to_seq": 5})
    assert (asked.status_code, asked.json()) == (202, {"records": 5})
    assert await ranges(api) == [(run, 1, 2), (run, 3, 4), (run, 5, 5)]


@pytest.mark.usefixtures("small")
async def test_republishing_ends_when_its_client_leaves(api: Any):
    run = await five_events(api)
    body = b'{"from_seq":1,"to_seq":5}'
    client = await connect_raw(api.service.port)
    await client.send(
        f"POST /v1/admin/runs/{run}/republish HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key.text}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await eventually(lambda: ranges(api), 10, "the first rows")
    client.leave()
    ended = 'request_seconds_count{method="POST",route="/v1/admin/runs/{run_id}/republish",status="400"'

    async def has_ended() -> bool:
        return ended in (await api.client.get("/metrics")).text

    await eventually(has_ended, 10, "the end of the request")
    assert await ranges(api) == [(run, 1, 2)], "and nothing more was written"


@pytest.mark.usefixtures("small")
async def test_republishing_ends_when_its_server_stops(api: Any):
    run = await five_events(api)
    body = {"from_seq": 1, "to_seq": 5}
    asked = asyncio.create_task(api.client.post(f"/v1/admin/runs/{run}/republish", json=body))
    await eventually(lambda: ranges(api), 10, "the first rows")
    await api.service.stop(timeout_seconds=10)
    answer = await asked
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert await ranges(api) == [(run, 1, 2)]


async def test_republishing_holds_up_nobody_who_writes_to_the_run(api: Any):
    run, key = await api.seed.run(api.key), api.key.tenant_id
    async with api.pool.transaction() as republishing:
        assert await republishing.fetchval(outbox.REPUBLISH, [run], [1], [1], key, None, 500, 2**20) == 1
        claimed = await api.claim("agent")
        assert claimed.status_code == 200
        lease = {"Juinie-Lease": claimed.json()["lease"]["token"]}
        assert (await api.append(run)).status_code == 201
        assert (await api.client.post(f"/v1/runs/{run}/heartbeat", headers=lease)).status_code == 200
        assert (await api.client.post(f"/v1/runs/{run}/cancel")).status_code == 202
        assert (await api.finish(run)).status_code == 200


async def claim(tx: Any, _run: Any, key: Any) -> None:
    assert await tx.fetchrow(claims.CLAIM, key.tenant_id, ["agent"], "w", '"w"', 30, None)


async def beat(tx: Any, run: Any, key: Any) -> None:
    assert await tx.fetchrow(claims.HEARTBEAT, run, key.tenant_id, None, 30)


async def append(tx: Any, run: Any, key: Any) -> None:
    assert await write(tx, Append(run, key.tenant_id, [NewEvent("x", "1")]))


async def cancel(tx: Any, run: Any, key: Any) -> None:
    assert await tx.fetchrow(runs.LOCK_RUN, run, key.tenant_id)


@pytest.mark.parametrize("writing", [claim, beat, append, cancel])
async def test_republishing_waits_for_nobody_who_writes_to_the_run(api: Any, writing: Any):
    run = await api.seed.run(api.key)
    async with api.pool.transaction() as tx:
        await writing(tx, run, api.key)
        answer = await api.client.post(f"/v1/admin/runs/{run}/republish", json={"from_seq": 1, "to_seq": 1})
        assert (answer.status_code, answer.json()) == (202, {"records": 1})


async def test_publisher_is_woken(api: Any, database_url: str):
    run, rung = await api.seed.run(api.key), list[str]()
    letter = await park(api, run, 1)
    listener = await connect(database_url, "test")
    for channel in (OUTBOX_CHANNEL, DUTIES_CHANNEL):
        await listener.add_listener(channel, lambda _c, _p, name, _x: rung.append(name))
    for path, body, channel in (
        (f"{DEAD}/{letter}/requeue", None, OUTBOX_CHANNEL),
        (f"/v1/admin/runs/{run}/republish", {"from_seq": 1, "to_seq": 1}, OUTBOX_CHANNEL),
        (f"{OUTBOX}/pause", None, DUTIES_CHANNEL),
        (f"{OUTBOX}/resume", None, DUTIES_CHANNEL),
    ):
        rung.clear()
        await api.client.post(path, json=body) if body else await api.client.post(path)
        await eventually(lambda channel=channel: channel in rung, 10, f"{path} wakes")
    await listener.close()


MOMENT, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    "body",
    [
        {}, {"from_seq": 1}, {"to_seq": 1}, {"from_seq": 2, "to_seq": 1}, {"from_seq": 0, "to_seq": 1},
        {"from_seq": -1, "to_seq": 1}, {"from_seq": "1", "to_seq": 1}, {"from_seq": 1.5, "to_seq": 2},
        {"from_seq": 1, "to_seq": 10**18}, {"from_seq": 1, "to_seq": 2, "more": 1}, {"from_seq": None, "to_seq": 1},
        {"from_seq": True, "to_seq": 1},
    ],
)  # fmt: skip
async def test_bad_range_is_refused(api: Any, body: Any):
    run = await api.seed.run(api.key)
    answer = await api.client.post(f"/v1/admin/runs/{run}/republish", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text


@pytest.mark.parametrize(
    "body",
    [
        {}, {"created_after": MOMENT}, {"created_before": MOMENT}, {"created_after": LATER, "created_before": MOMENT},
        {"created_after": MOMENT, "created_before": MOMENT}, {"created_after": "x", "created_before": LATER},
        {"created_after": "2026-01-01T00:00:00", "created_before": LATER}, {"created_after": 1, "created_before": 2},
        {"created_after": MOMENT, "created_before": LATER, "tenant": "b"},
    ],
)  # fmt: skip
async def test_bad_time_is_refused(api: Any, body: Any):
    answer = await api.client.post("/v1/admin/republish", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text


@pytest.mark.parametrize(
    "path", [f"{OUTBOX}/pause", f"{OUTBOX}/resume", f"{DEAD}/1/requeue", f"{DEAD}/1/discard"]
)
async def test_bodies_where_none_is_wanted(api: Any, path: str):
    assert (await api.client.post(path, json={"why": "x"})).status_code == 422
    assert (await api.client.post(path, json=[])).status_code == 422
    assert (await api.client.post(f"{path}?x=1")).status_code == 400


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 422), ("limit=201", 422), ("limit=x", 422), ("limit=1.0", 422), ("limit=٣", 422), ("nope=1", 400),
        ("limit=1&limit=1", 400), ("cursor=", 400), ("cursor=!!", 400), ("cursor=NQ%3D%3D%3D", 400), ("cursor=eA", 400),
        ("cursor=LTE", 400), ("cursor=OTk5OTk5OTk5OTk5OTk5OTk5OQ", 400), ("cursor=2aM", 400), ("cursor=NQ", 200),
    ],
)  # fmt: skip
async def test_bad_page_is_refused(api: Any, query: str, status: int):
    assert (await api.client.get(f"{DEAD}?{query}")).status_code == status
    assert (await api.client.get(f"{OUTBOX}?limit=1")).status_code == 400
