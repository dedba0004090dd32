"""The watcher tells the ways apart in which a stream can end, and resumes where it was."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from juinie_shared.contracts import sse
from juinie_testkit.frames import StreamViolation
from juinie_testkit.waits import StillMissing, await_stream_completion
from juinie_testkit.watcher import Watcher

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
PREAMBLE = sse.preamble(2000)
END = sse.control_frame(sse.END, {"last_seq": 2, "status": "success"})
RUN = "01930000-0000-7000-8000-000000000000"


def event(seq: int) -> bytes:
    return sse.event_frame(seq, b'{"seq":%d,"type":"a","time":"2026-11-23T12:00:00.000000Z","data":{}}' % seq)


def chunk(*frames: bytes) -> bytes:
    data = b"".join(frames)
    return b"%x\r\n%b\r\n" % (len(data), data)


class Script:
    """A server that sends these bytes, then closes or waits, and keeps the requests that it got."""

    def __init__(self) -> None:
        self.answer = b""
        self.stays_open = False
        self.requests: list[str] = []
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.answer)
        await writer.drain()
        if self.stays_open:
            await reader.read()
        writer.close()


@pytest.fixture
async def script() -> AsyncGenerator[Script]:
    made = Script()
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


async def test_end_and_last_chunk_complete_a_stream(script: Script):
    script.answer = HEAD + chunk(PREAMBLE, event(1), event(2), END) + LAST_CHUNK
    async with Watcher(script.url, RUN, key="k") as watcher:
        await await_stream_completion(watcher, timeout_seconds=5)
    assert (watcher.ended, watcher.seqs, watcher.control("stream.end")["status"]) == (True, [1, 2], "success")


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (chunk(PREAMBLE, event(1), END), "cut"),
        (chunk(PREAMBLE, event(1)), "cut"),
        (chunk(PREAMBLE, event(1)) + LAST_CHUNK, "clean"),
    ],
)
async def test_anything_else_completes_none_and_says_where_it_stood(script: Script, body: bytes, state: str):
    script.answer = HEAD + body
    async with Watcher(script.url, RUN, key="k", name="tab 1") as watcher:
        with pytest.raises(
            StillMissing, match=f"1 of 1 watchers saw no end: tab 1 is {state} .status 200., last seq 1 of 1"
        ):
            await await_stream_completion(watcher, timeout_seconds=5)


async def test_completion_that_does_not_come_in_time_says_what_was_seen_last(script: Script):
    script.answer, script.stays_open = HEAD + chunk(PREAMBLE, event(1), event(2)), True
    async with Watcher(script.url, RUN, key="k") as watcher:
        await watcher.until_seq(2, 5)
        with pytest.raises(StillMissing) as missing:
            await await_stream_completion(watcher, timeout_seconds=0.01)
    assert "is open" in str(missing.value)
    assert "last seq 2 of 2 events, last id 2, controls: none" in str(missing.value)


async def test_refusal_is_an_answer_and_not_a_stream(script: Script):
    script.answer = b'HTTP/1.1 404 Not Found\r\nContent-Length: 16\r\n\r\n{"code":"absent"}'[:-1]
    script.answer = b'HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n{"code":"absent"}'
    async with Watcher(script.url, RUN, key="k") as watcher:
        assert (watcher.state, watcher.status, watcher.problem["code"]) == ("refused", 404, "absent")


async def test_body_without_chunks_is_a_violation_because_its_end_says_nothing(script: Script):
    script.answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + PREAMBLE
    with pytest.raises(StreamViolation, match="not chunked"):
        async with Watcher(script.url, RUN, key="k"):
            pass


@pytest.mark.parametrize(
    ("frames", "says"),
    [((event(2), event(2)), "After id 2 came id 2"), ((END, event(3)), "After stream.end")],
)
async def test_repeated_and_late_events_are_violations(script: Script, frames: tuple[bytes, ...], says: str):
    script.answer = HEAD + chunk(PREAMBLE, *frames) + LAST_CHUNK
    with pytest.raises(StreamViolation, match=says):
        async with Watcher(script.url, RUN, key="k") as watcher:
            await watcher.until_closed(5)


async def test_dropped_watcher_resumes_after_the_last_id_with_its_first_url(script: Script):
    script.answer, script.stays_open = HEAD + chunk(PREAMBLE, event(6), event(7)), True
    async with Watcher(script.url, RUN, key="secret", after_seq=5, types="a") as watcher:
        await watcher.until_seq(7, 5)
        await watcher.drop()
        assert watcher.state == "dropped"
    script.answer, script.stays_open = HEAD + chunk(PREAMBLE, event(8), END) + LAST_CHUNK, False
    async with watcher.resume() as resumed:
        await resumed.until_closed(5)
    assert resumed.seqs == [8]
    line, *headers = script.requests[1].split("\r\n")
    assert line == f"GET /v1/runs/{RUN}/stream?after_seq=5&types=a HTTP/1.1"
    assert {"Last-Event-ID: 7", "Authorization: Bearer secret"} <= set(headers)


async def test_event_cut_before_its_blank_line_does_not_move_the_cursor(script: Script):
    script.answer = HEAD + chunk(PREAMBLE, event(1), event(2)[:-1])
    async with Watcher(script.url, RUN, key="k") as watcher:
        await watcher.until_closed(5)
    assert (watcher.state, watcher.last_id) == ("cut", 1)


async def test_what_cannot_come_any_more_is_not_waited_for(script: Script):
    script.answer = HEAD + chunk(PREAMBLE, event(1))
    wanted: Callable[[Watcher], bool] = lambda watcher: len(watcher.seqs) == 2  # noqa: E731
    async with Watcher(script.url, RUN, key="k") as watcher:
        with pytest.raises(StillMissing, match="is cut"):
            await watcher.until(wanted, timeout_seconds=60)
