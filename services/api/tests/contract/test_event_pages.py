"""Events in pages: after a position, of some types, within a number of bytes, now or in a while."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from juinie_api.app import serve
from juinie_api.core import page as core_page
from juinie_testkit.running import running
from juinie_testkit.waits import eventually


async def page(api: Any, run_id: str, **query: Any) -> dict[str, Any]:
    response = await api.client.get(f"/v1/runs/{run_id}/events", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def seqs(found: dict[str, Any]) -> list[int]:
    return [event["seq"] for event in found["events"]]


async def test_pages_follow_each_other_without_overlap(api: Any):
    run_id = (await api.create())["run_id"]
    await api.append(run_id, *"abcdefgh")
    first = await page(api, run_id, limit=4)
    assert (seqs(first), first["next_after_seq"], first["up_to_date"]) == ([1, 2, 3, 4], 4, False)
    rest = await page(api, run_id, limit=7, after_seq=first["next_after_seq"])
    assert (seqs(rest), rest["up_to_date"], rest["finished"]) == ([5, 6, 7, 8, 9, 10], True, False)
    none = await page(api, run_id, after_seq=10)
    assert none == {
        "events": [], "next_after_seq": 10, "last_seq": 10, "up_to_date": True, "finished": False, "reset": False,
    }  # fmt: skip


async def test_the_start_has_several_spellings(api: Any):
    run_id = (await api.create())["run_id"]
    for start in ("0", "-1", "000"):
        assert seqs(await page(api, run_id, after_seq=start)) == [1]


async def test_a_position_ahead_of_the_run_begins_again(api: Any):
    run_id = (await api.create())["run_id"]
    again = await page(api, run_id, after_seq=7)
    assert (seqs(again), again["reset"], again["next_after_seq"]) == ([1], True, 1)
    assert (await page(api, run_id, after_seq=1))["reset"] is False


async def test_types_leave_out_others_but_never_the_end(api: Any):
    run_id = (await api.create())["run_id"]
    await api.append(run_id, "a", "b", "a", "c")
    found = await page(api, run_id, types="a,c")
    assert (seqs(found), found["next_after_seq"], found["up_to_date"]) == ([3, 5, 6], 6, True)
    cut = await page(api, run_id, types="a", limit=1)
    assert (seqs(cut), cut["next_after_seq"], cut["up_to_date"]) == ([3], 3, False)
    tail = await page(api, run_id, types="nothing", limit=1)
    assert (seqs(tail), tail["next_after_seq"], tail["up_to_date"]) == ([], 6, True)
    await api.finish(run_id)
    ended = await page(api, run_id, types="nothing")
    assert (seqs(ended), ended["finished"]) == ([7], True)


async def test_a_long_run_with_few_events_of_the_types_is_read_in_parts(
    api: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(core_page, "LOOK_SEQS", 3)
    run_id = (await api.create())["run_id"]
    await api.append(run_id, "a", "a", "b", "a", "a", "a", "a", "a")
    parts, after_seq = list[Any](), 0
    while not parts or not parts[-1][2]:
        found = await page(api, run_id, types="b", after_seq=after_seq)
        after_seq = found["next_after_seq"]
        parts.append((seqs(found), after_seq, found["up_to_date"]))
    assert parts == [([], 3, False), ([5], 6, False), ([], 9, False), ([], 10, True)]
    assert len(seqs(await page(api, run_id))) == 10, "a page of all types has no parts"
    poll = asyncio.create_task(page(api, run_id, types="late", wait_seconds=30))
    await api.append(run_id, "late")
    assert seqs(await poll) == [11], "who waits reads on"


async def test_a_page_of_huge_events_ends_early(settings: Any, api: Any):
    run_id = (await api.create())["run_id"]
    events = [{"type": "x", "data": "y" * 900} for _ in range(10)]
    await api.client.post(f"/v1/runs/{run_id}/events", json={"events": events})
    small = settings.model_copy(update={"max_page_bytes": 2000})
    async with running(serve, small) as service:
        read, after_seq = list[int](), 0
        while True:
            found = (
                await api.client.get(
                    f"{service.url}/v1/runs/{run_id}/events", params={"after_seq": after_seq}
                )
            ).json()
            assert 0 < len(found["events"]) <= 6
            read += seqs(found)
            after_seq = found["next_after_seq"]
            if found["up_to_date"]:
                break
    assert read == list(range(1, 13))


async def test_events_past_their_retention_are_gone(api: Any):
    run_id = (await api.create())["run_id"]
    await api.append(run_id, "a", "b")
    await api.rows("UPDATE run SET retained_from_seq = 4 WHERE run_id = $1", UUID(run_id))
    await api.rows("DELETE FROM run_event WHERE run_id = $1 AND seq < 4", UUID(run_id))
    for after_seq in (0, 2):
        gone = await api.client.get(f"/v1/runs/{run_id}/events", params={"after_seq": after_seq})
        assert (gone.status_code, gone.json()["code"], gone.json()["retained_from_seq"]) == (
            410,
            "events_gone",
            4,
        )
    assert seqs(await page(api, run_id, after_seq=3)) == [4]


async def test_a_run_of_which_no_event_is_kept_says_so_and_has_an_end(api: Any):
    run_id = (await api.create())["run_id"]
    await api.append(run_id, "a", "b")
    await api.finish(run_id, output=42)
    await _remove_events(api, run_id, until=5)
    for after_seq, types in ((0, None), (4, None), (0, "a"), (0, "none")):
        query = {"after_seq": after_seq} | ({"types": types} if types else {})
        gone = await api.client.get(f"/v1/runs/{run_id}/events", params=query)
        assert (gone.status_code, gone.json()["retained_from_seq"]) == (410, 6)
    last = await page(api, run_id, after_seq=5, wait_seconds=30)
    assert (last["events"], last["up_to_date"], last["finished"], last["last_seq"]) == ([], True, True, 5)
    kept = (await api.client.get(f"/v1/runs/{run_id}")).json()
    assert (kept["status"], kept["output"], kept["last_seq"]) == ("success", 42, 5)


@pytest.mark.parametrize("until", [1, 3, 5])
@pytest.mark.parametrize("query", [{}, {"limit": 2}, {"types": "b"}, {"types": "none"}])
async def test_a_page_whose_events_go_while_it_is_read_has_no_silent_hole(
    api: Any, monkeypatch: pytest.MonkeyPatch, until: int, query: dict[str, Any]
):
    run_id = (await api.create())["run_id"]
    await api.append(run_id, "a", "b")
    await api.finish(run_id)
    really_read = core_page._read_events

    async def remove_first(*args: Any) -> Any:
        await _remove_events(api, run_id, until)
        return await really_read(*args)

    monkeypatch.setattr(core_page, "_read_events", remove_first)
    gone = await api.client.get(f"/v1/runs/{run_id}/events", params=query)
    assert (gone.status_code, gone.json()["retained_from_seq"]) == (410, until + 1)


async def _remove_events(api: Any, run_id: str, until: int) -> None:
    """As retention does: what is gone is told in the same transaction."""
    async with api.pool.transaction() as tx:
        await tx.execute("DELETE FROM run_event WHERE run_id = $1 AND seq <= $2", run_id, until)
        await tx.execute("UPDATE run SET retained_from_seq = $2 WHERE run_id = $1", run_id, until + 1)


async def test_a_long_poll_is_answered_by_the_next_event(api: Any):
    run_id = (await api.create())["run_id"]
    polls = [asyncio.create_task(page(api, run_id, after_seq=1, wait_seconds=30)) for _ in range(30)]
    await eventually(lambda: _long_polls(api, 30), 10, "thirty long polls")
    await api.append(run_id)
    for found in await asyncio.gather(*polls):
        assert seqs(found) == [2, 3]


async def test_a_long_poll_waits_past_types_left_out_and_ends_with_the_run(api: Any):
    run_id = (await api.create())["run_id"]
    poll = asyncio.create_task(page(api, run_id, after_seq=1, types="wanted", wait_seconds=30))
    await eventually(lambda: _long_polls(api, 1), 10, "one long poll")
    await api.append(run_id, "other")
    await api.append(run_id, "wanted")
    assert seqs(await poll) == [4]
    poll = asyncio.create_task(page(api, run_id, after_seq=4, types="wanted", wait_seconds=30))
    await api.finish(run_id)
    found = await poll
    assert (seqs(found), found["finished"]) == ([5], True)
    assert (await page(api, run_id, after_seq=5, wait_seconds=30))["events"] == []


async def test_a_long_poll_from_ahead_of_the_run_is_told_so_at_once(api: Any):
    run_id = (await api.create())["run_id"]
    found = await page(api, run_id, after_seq=100, types="wanted", wait_seconds=30)
    assert (found["events"], found["reset"], found["next_after_seq"]) == ([], True, 1)


async def test_a_long_poll_with_nothing_to_tell_says_so(api: Any):
    run_id = (await api.create())["run_id"]
    found = await page(api, run_id, after_seq=1, wait_seconds=0.05)
    assert (found["events"], found["up_to_date"], found["finished"]) == ([], True, False)


async def test_a_stopping_server_lets_long_polls_go_at_once(api: Any):
    run_id = (await api.create())["run_id"]
    poll = asyncio.create_task(page(api, run_id, after_seq=1, wait_seconds=30))
    wait = asyncio.create_task(api.client.get(f"/v1/runs/{run_id}/wait", params={"timeout_seconds": 60}))
    await eventually(lambda: _long_polls(api, 2), 10, "two long polls")
    await api.service.stop(timeout_seconds=10)
    assert (await poll)["events"] == []
    assert (await wait).status_code == 202


async def test_pages_of_a_finished_run_are_sent_once(api: Any):
    run_id = (await api.create())["run_id"]
    path = f"/v1/runs/{run_id}/events"
    assert "etag" not in (await api.client.get(path)).headers
    await api.finish(run_id)
    first = await api.client.get(path)
    etag = first.headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        again = await api.client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await api.client.get(path, headers={"If-None-Match": '"other"'})).content == first.content
    for query in ("?after_seq=1", "?limit=1", "?types=x"):
        other = await api.client.get(path + query, headers={"If-None-Match": etag})
        assert other.status_code == 200


async def _long_polls(api: Any, wanted: int) -> bool:
    text = (await api.client.get("/metrics")).text
    return f"\njuinie_api_long_polls {float(wanted)}" in text
