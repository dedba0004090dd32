"""The stream's bytes: headers, preamble, frames, filters, heartbeats, the end (protocol 5.1, 5.2, 5.4, 5.6)."""

import json
from contextlib import AsyncExitStack

import pytest

from juinie_testkit.waits import await_stream_completion

PREAMBLE = b"retry: 2000\n: juinie\n"


def _events(lines):
    """The frames of these events, each given as the JSON that the API shows."""
    return b"".join(b"data: %b\nid: %d\n\n" % (line, json.loads(line)["seq"]) for line in lines)


def _bytes_of(watcher):
    """All that came, but for the comments that break a silence: they may come at any time."""
    return bytes(watcher.raw).replace(b"\n:\n", b"\n")


def _control(name, data):
    return b"event: stream.%b\ndata: %b\n\n" % (name, data)


async def test_headers_are_exactly_these(api, watch):
    run_id = await api.new_run()

    async with watch(
        run_id, headers={"Origin": "http://localhost:5173", "Accept-Encoding": "gzip, br"}
    ) as watcher:
        headers = watcher.headers

    assert headers.get_list("content-type") == ["text/event-stream"]
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["location"] == f"/v1/runs/{run_id}/stream"
    assert headers["vary"] == "Origin"
    assert headers["transfer-encoding"] == "chunked"
    assert "content-encoding" not in headers
    assert "content-length" not in headers


async def test_vary_names_origin_for_who_sends_none(api, watch):
    async with watch(await api.new_run()) as watcher:
        assert watcher.headers["vary"] == "Origin"


async def test_first_bytes_come_before_any_event(api, watch):
    async with watch(await api.new_run(), after_seq=1) as watcher:
        await watcher.until_caught_up()

    assert _bytes_of(watcher) == PREAMBLE + _control(b"caught_up", b'{"last_seq":1}')


async def test_a_finished_run_is_its_events_then_caught_up_then_the_end(api, watch):
    run_id, last_seq = await api.finished_run(("A", 1), ("B", {"b": [None, True]}))

    async with watch(run_id) as watcher:
        await watcher.until_closed()

    end = b'{"last_seq":%d,"status":"success"}' % last_seq
    assert _bytes_of(watcher) == b"".join(
        [
            PREAMBLE,
            _events(await api.event_lines(run_id)),
            _control(b"caught_up", b'{"last_seq":%d}' % last_seq),
            _control(b"end", end),
        ]
    )
    assert watcher.ended


@pytest.mark.parametrize("status", ["success", "error", "cancelled"])
async def test_the_end_tells_how_the_run_ended(api, watch, status):
    run_id = await api.new_run()
    async with watch(run_id) as watcher:
        await watcher.until_caught_up()
        last_seq = await api.end(run_id, status)
        await watcher.until_closed()

    assert watcher.ended
    assert watcher.control("stream.end") == {"last_seq": last_seq, "status": status}
    assert watcher.events[-1].json["type"] == "run.finished"
    assert watcher.seqs == list(range(1, last_seq + 1))


@pytest.mark.parametrize(
    "data",
    [
        "null", "9007199254740993", "1.0", "1e400", "-0", '"\\u0000"', '"\\ud83d\\ude00 \U0001f600"',
        '{"b":1,"a":2,"b":3}', '" \u2028 \\n\\r "', '"data: x\\n\\nid: 99"', "[]",
    ],
)  # fmt: skip
async def test_data_comes_out_as_it_went_in(api, watch, data):
    run_id = await api.new_run()
    await api.add_json(run_id, f'{{"events":[{{"type":"RAW","data":{data}}}]}}')

    async with watch(run_id, after_seq=2) as watcher:
        await watcher.until_seq(3)

    assert watcher.events[0].data.endswith(f',"data":{data}}}')
    assert watcher.events[0].data.encode() == (await api.event_lines(run_id))[-1]


async def test_white_space_outside_strings_is_taken_out(api, watch):
    run_id = await api.new_run()
    await api.add_json(run_id, '{"events": [{"type": "RAW", "data": {"a" : [1 ,\n 2], "b": " c  d "}}]}')

    async with watch(run_id, after_seq=2) as watcher:
        await watcher.until_seq(3)

    assert watcher.events[0].data.endswith(',"data":{"a":[1,2],"b":" c  d "}}')


async def test_what_is_appended_while_watching_follows_after_caught_up(api, watch):
    run_id = await api.new_run()
    async with watch(run_id) as watcher:
        await watcher.until_caught_up()
        for number in range(20):
            await api.add(run_id, ("STEP", number))
        last_seq = await api.end(run_id)
        await watcher.until_closed()

    assert watcher.seqs == list(range(1, last_seq + 1))
    assert [frame.event for frame in watcher.controls] == ["stream.caught_up", "stream.end"]
    assert watcher.controls[0].json == {"last_seq": 1}


async def test_silence_is_broken_by_a_comment(api, watch):
    async with watch(await api.new_run()) as watcher:
        await watcher.until_caught_up()
        await watcher.until(lambda seen: seen.frames[-1].comment == "")

    assert b'{"last_seq":1}\n\n:\n' in watcher.raw


async def test_types_leave_out_others_but_never_the_end(api, watch):
    run_id, last_seq = await api.finished_run(("A", 1), ("B", 2), ("A", 3), ("B", 4))

    async with watch(run_id, types="A") as watcher:
        await watcher.until_closed()

    assert [event.json["type"] for event in watcher.events] == ["A", "A", "run.finished"]
    assert watcher.ended
    assert watcher.last_id == last_seq


async def test_types_move_the_cursor_past_what_they_leave_out_before_caught_up(api, watch):
    run_id = await api.new_run()
    last_seq = await api.add(run_id, ("A", 1), ("B", 2), ("B", 3))

    async with watch(run_id, types="A") as watcher:
        await watcher.until_caught_up()

    cursor, caught_up = watcher.frames[-2:]
    assert (cursor.id, cursor.data, caught_up.event) == (last_seq, None, "stream.caught_up")


async def test_types_move_the_cursor_while_only_others_come(api, watch):
    run_id = await api.new_run()
    async with watch(run_id, types="A") as watcher:
        await watcher.until_caught_up()
        last_seq = await api.add(run_id, ("B", 1), ("B", 2))
        await watcher.until(lambda seen: seen.last_id == last_seq)

    assert watcher.events == []


async def test_tail_says_at_once_where_it_stands_and_then_only_what_comes(api, watch):
    run_id = await api.new_run()
    last_seq = await api.add(run_id, ("A", 1), ("A", 2))
    async with watch(run_id, after_seq="tail") as watcher:
        await watcher.until_caught_up()
        assert _bytes_of(watcher) == b"%bid: %d\n\n%b" % (
            PREAMBLE, last_seq, _control(b"caught_up", b'{"last_seq":%d}' % last_seq),
        )  # fmt: skip
        await api.add(run_id, ("A", 3))
        await watcher.until_seq(last_seq + 1)

    assert watcher.seqs == [last_seq + 1]


async def test_tail_of_a_finished_run_has_nothing_to_come(api, watch):
    run_id, _ = await api.finished_run()

    async with watch(run_id, after_seq="tail") as watcher:
        assert watcher.status == 204


async def test_a_long_run_comes_whole(api, watch):
    run_id = await api.new_run()
    for _ in range(3):
        await api.add(run_id, *[("STEP", "x" * 200)] * 1000)
    last_seq = await api.end(run_id)

    async with watch(run_id) as watcher:
        await watcher.until_closed(60)

    assert watcher.seqs == list(range(1, last_seq + 1))


async def test_watchers_that_come_at_different_moments_each_see_it_all(api, watch):
    run_id = await api.new_run()
    await api.add(run_id, ("STEP", 0))
    async with AsyncExitStack() as audience:
        watchers = [
            await audience.enter_async_context(watch(run_id, after_seq=after)) for after in (0, 1, 2, 3)
        ]
        await api.add(run_id, *[("STEP", number) for number in range(50)])
        watchers += [
            await audience.enter_async_context(watch(run_id, after_seq=after)) for after in (0, 1, 2, 53)
        ]
        last_seq = await api.end(run_id)
        await await_stream_completion(*watchers)

    after = [0, 1, 2, 3, 0, 1, 2, 53]
    assert [watcher.seqs for watcher in watchers] == [list(range(seq + 1, last_seq + 1)) for seq in after]


async def test_a_gateway_that_stops_says_come_back_and_ends_without_the_last_chunk(api, stack, watch):
    run_id = await api.new_run()
    async with watch(run_id) as watcher:
        await watcher.until_caught_up()
        await stack.gateway.restart()
        await watcher.until_closed()
        last_seq = await api.end(run_id)
        async with watcher.resume() as again:
            await again.until_closed()

    retry, reconnect = watcher.frames[-2:]
    assert 1000 <= retry.retry <= 5000
    assert (reconnect.event, set(reconnect.json)) == ("stream.reconnect", {"reason"})
    assert watcher.state == "cut"
    assert watcher.seqs + again.seqs == list(range(1, last_seq + 1))
