"""Where a stream begins and ends: every position, on running and finished runs."""

import pytest

from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import RunId, Seq
from juinie_stream_gateway.core.backfill import Backfill
from juinie_stream_gateway.core.hub import Room
from juinie_stream_gateway.store import Page
from juinie_testkit.running import RunningService
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import await_stream_completion
from juinie_testkit.watcher import Watcher

PREAMBLE = b"retry: 2000\n: juinie\n"


async def finished_run(seed: Seed, key: SeededKey, events: int = 5) -> tuple:
    run_id = await seed.run(key)
    await seed.append(run_id, *[("text", {"i": i}) for i in range(events)])
    return run_id, await seed.finish(run_id)


async def test_every_position_of_a_finished_run_gives_what_follows_and_the_end(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id, last_seq = await finished_run(seed, key)
    for after_seq in range(last_seq):
        async with Watcher(gateway.url, run_id, key=key.text, last_event_id=after_seq) as watcher:
            await await_stream_completion(watcher)
        assert watcher.seqs == list(range(after_seq + 1, last_seq + 1))
        assert [frame.event for frame in watcher.controls] == ["stream.caught_up", "stream.end"]


async def test_every_position_of_a_running_run_is_caught_up_once(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    _, last_seq = await seed.append(run_id, *[("text", i) for i in range(4)])
    for after_seq in range(last_seq + 1):
        async with Watcher(gateway.url, run_id, key=key.text, after_seq=after_seq) as watcher:
            await watcher.until_caught_up()
            assert watcher.seqs == list(range(after_seq + 1, last_seq + 1))
            assert watcher.control("stream.caught_up") == {"last_seq": last_seq}


async def test_bytes_of_a_stream(gateway: RunningService, seed: Seed, key: SeededKey, pool: Pool) -> None:
    run_id = await seed.run(key)
    await seed.append(run_id, ("TEXT", {"delta": "Hel"}))
    await seed.finish(run_id)
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE run_event SET occurred_at = '2026-11-23T12:00:00.1Z' WHERE run_id = $1", run_id
        )
    async with Watcher(gateway.url, run_id, key=key.text, after_seq=1) as watcher:
        await await_stream_completion(watcher)
    assert bytes(watcher.raw) == (
        PREAMBLE
        + b'data: {"seq":2,"type":"TEXT","time":"2026-11-23T12:00:00.100000Z","data":{"delta":"Hel"}}\nid: 2\n\n'
        + b'data: {"seq":3,"type":"run.finished","time":"2026-11-23T12:00:00.100000Z",'
        + b'"data":{"status":"success","output":null,"error":null}}\nid: 3\n\n'
        + b'event: stream.caught_up\ndata: {"last_seq":3}\n\n'
        + b'event: stream.end\ndata: {"last_seq":3,"status":"success"}\n\n'
    )
    assert {
        name: watcher.headers[name] for name in ("content-type", "cache-control", "vary", "location")
    } == {
        "content-type": "text/event-stream",
        "cache-control": "no-store, no-transform",
        "vary": "Origin",
        "location": f"/v1/runs/{run_id}/stream",
    }
    assert watcher.headers["x-accel-buffering"] == "no"
    assert watcher.headers["referrer-policy"] == "no-referrer"
    assert watcher.headers["x-content-type-options"] == "nosniff"


async def test_header_counts_over_the_parameter_that_event_source_repeats(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id, last_seq = await finished_run(seed, key)
    async with Watcher(gateway.url, run_id, key=key.text, after_seq=1, last_event_id=last_seq - 1) as watcher:
        await await_stream_completion(watcher)
    assert watcher.seqs == [last_seq]


async def test_the_start_has_many_spellings(gateway: RunningService, seed: Seed, key: SeededKey) -> None:
    run_id, last_seq = await finished_run(seed, key, events=1)
    for position in ("", "0", "-1", None):
        async with Watcher(gateway.url, run_id, key=key.text, after_seq=position) as watcher:
            await await_stream_completion(watcher)
        assert watcher.seqs == list(range(1, last_seq + 1))


async def test_nothing_is_left_of_a_finished_run_at_its_last_seq(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id, last_seq = await finished_run(seed, key)
    for position in (last_seq, "tail"):
        async with Watcher(gateway.url, run_id, key=key.text, after_seq=position) as watcher:
            assert watcher.status == 204


async def test_a_client_that_is_ahead_is_told_and_starts_again(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    _, last_seq = await seed.append(run_id, ("text", 1), ("text", 2))
    async with Watcher(gateway.url, run_id, key=key.text, last_event_id=last_seq + 7) as watcher:
        await watcher.until_caught_up()
        assert watcher.control("stream.reset") == {"last_seq": last_seq}
        assert watcher.seqs == list(range(1, last_seq + 1))
        last_seq = await seed.finish(run_id)
        await await_stream_completion(watcher)
    async with Watcher(gateway.url, run_id, key=key.text, last_event_id=last_seq + 1) as watcher:
        await await_stream_completion(watcher)
    assert watcher.control("stream.reset") == {"last_seq": last_seq}
    assert watcher.seqs == list(range(1, last_seq + 1))


async def test_what_is_past_its_retention_is_told_and_the_rest_comes(
    gateway: RunningService, seed: Seed, key: SeededKey, pool: Pool
) -> None:
    run_id, last_seq = await finished_run(seed, key, events=8)
    async with pool.transaction() as connection:
        await connection.execute("DELETE FROM run_event WHERE run_id = $1 AND seq < 5", run_id)
        await connection.execute("UPDATE run SET retained_from_seq = 5 WHERE run_id = $1", run_id)
    for after_seq, gap in ((0, True), (3, True), (4, False), (6, False)):
        async with Watcher(gateway.url, run_id, key=key.text, after_seq=after_seq) as watcher:
            await await_stream_completion(watcher)
        assert watcher.control("stream.gap") == ({"retained_from_seq": 5} if gap else None)
        assert watcher.seqs == list(range(max(5, after_seq + 1), last_seq + 1))


async def remove_events(pool: Pool, run_id: RunId, until: int) -> None:
    """As retention does: what is gone is told in the same transaction."""
    async with pool.transaction() as connection:
        await connection.execute("DELETE FROM run_event WHERE run_id = $1 AND seq <= $2", run_id, until)
        await connection.execute("UPDATE run SET retained_from_seq = $2 WHERE run_id = $1", run_id, until + 1)


async def test_a_run_of_which_nothing_is_kept_is_a_gap_and_an_end(
    gateway: RunningService, seed: Seed, key: SeededKey, pool: Pool
) -> None:
    run_id, last_seq = await finished_run(seed, key, events=8)
    await remove_events(pool, run_id, last_seq)
    for after_seq in (0, 3, last_seq - 1):
        async with Watcher(gateway.url, run_id, key=key.text, after_seq=after_seq) as watcher:
            await await_stream_completion(watcher)
        assert [control.event for control in watcher.controls] == [
            "stream.gap",
            "stream.caught_up",
            "stream.end",
        ]
        assert watcher.control("stream.gap") == {"retained_from_seq": last_seq + 1}
        assert watcher.control("stream.end") == {"last_seq": last_seq, "status": "success"}
        assert (watcher.seqs, watcher.last_id) == ([], last_seq)
    async with Watcher(gateway.url, run_id, key=key.text, after_seq=last_seq) as watcher:
        assert watcher.status == 204


@pytest.mark.parametrize("everything", [False, True])
async def test_events_that_go_while_they_are_streamed_are_told(
    gateway: RunningService,
    seed: Seed,
    key: SeededKey,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    everything: bool,
) -> None:
    """The second page is read after retention has been there."""
    run_id, last_seq = await finished_run(seed, key, events=1200)
    until = last_seq if everything else 900
    really_read, pages = Backfill._read, []

    async def remove_before_the_second(backfill: Backfill, room: Room, after_seq: Seq) -> Page | None:
        if len(pages) == 1:
            await remove_events(pool, run_id, until)
        page = await really_read(backfill, room, after_seq)
        pages.append(page)
        return page

    monkeypatch.setattr(Backfill, "_read", remove_before_the_second)
    async with Watcher(gateway.url, run_id, key=key.text) as watcher:
        await await_stream_completion(watcher)
    read = len(pages[0].events)
    assert 0 < read < 900
    assert watcher.seqs == [*range(1, read + 1), *range(until + 1, last_seq + 1)]
    assert watcher.control("stream.gap") == {"retained_from_seq": until + 1}
    assert watcher.control("stream.end") == {"last_seq": last_seq, "status": "success"}


async def test_tail_gives_its_position_at_once_and_then_only_what_comes(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    _, last_seq = await seed.append(run_id, ("text", 1), ("text", 2))
    async with Watcher(gateway.url, run_id, key=key.text, after_seq="tail") as watcher:
        await watcher.until_caught_up()
        assert bytes(watcher.raw) == PREAMBLE + (b"id: %d\n\nevent: stream.caught_up\ndata: " % last_seq) + (
            b'{"last_seq":%d}\n\n' % last_seq
        )
        await seed.finish(run_id)
        await await_stream_completion(watcher)
    assert watcher.seqs == [last_seq + 1]


async def test_a_filter_lets_its_types_and_the_end_through_and_moves_the_cursor(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    await seed.append(run_id, ("a", 1), ("b", 1), ("a", 2), ("c", 1), ("b", 2))
    async with Watcher(gateway.url, run_id, key=key.text, types="a,c") as watcher:
        await watcher.until_caught_up()
        assert watcher.seqs == [2, 4, 5]
        assert watcher.last_id == 6, "the cursor has moved past what was left out"
        last_seq = await seed.finish(run_id)
        await await_stream_completion(watcher)
    assert watcher.seqs == [2, 4, 5, last_seq]


async def test_a_filtered_live_stream_moves_its_cursor_every_few_seconds(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    async with Watcher(gateway.url, run_id, key=key.text, types="a") as watcher:
        await watcher.until_caught_up()
        _, last_seq = await seed.append(run_id, ("b", 1), ("b", 2))
        await watcher.until(lambda seen: seen.last_id == last_seq, 10)
    assert watcher.seqs == []


async def test_a_long_run_comes_in_pages_and_whole(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    for _ in range(4):
        await seed.append(run_id, *[("text", "x" * 300) for _ in range(400)])
    last_seq = await seed.finish(run_id)
    async with Watcher(gateway.url, run_id, key=key.text) as watcher:
        await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, last_seq + 1))


async def test_a_stream_dropped_anywhere_resumes_without_loss(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    seen: list[int] = []
    watcher = Watcher(gateway.url, run_id, key=key.text)
    for round_number in range(5):
        _, last_seq = await seed.append(run_id, ("text", round_number), ("text", round_number))
        async with watcher:
            await watcher.until_seq(last_seq)
        seen += watcher.seqs
        watcher = watcher.resume()
    last_seq = await seed.finish(run_id)
    async with watcher:
        await await_stream_completion(watcher)
    assert seen + watcher.seqs == list(range(1, last_seq + 1))
