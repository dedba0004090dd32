"""A head whose body follows waits for it; nothing else waits."""

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from juinie_shared.runtime.one_write import OneWrite


class Written:
    """A transport that keeps what is written to it, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def cycle_over(transport: Any, method: str = "GET", *, expects: bool = False) -> RequestResponseCycle:
    scope: Any = {"method": method, "http_version": "1.1"}
    log = logging.getLogger("test")
    cycle = RequestResponseCycle(
        scope, transport, FlowControl(transport), log, log, False, [], asyncio.Event(), expects, True, lambda: None
    )  # fmt: skip
    OneWrite(cycle)
    return cycle


def head(*headers: tuple[bytes, bytes]) -> Any:
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> Any:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_head_and_body_of_known_length_are_one_write() -> None:
    written = Written()
    cycle = cycle_over(written)
    await cycle.send(head((b"content-length", b"5")))
    assert written.writes == []
    await cycle.send(body(b"12345"))
    assert written.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12345"]
    assert cycle.transport is written  # pyright: ignore[reportUnnecessaryComparison]


async def test_an_empty_body_is_waited_for_too() -> None:
    written = Written()
    cycle = cycle_over(written)
    await cycle.send(head((b"content-length", b"0")))
    await cycle.send(body(b""))
    assert written.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]


async def test_later_parts_of_a_body_go_past_it() -> None:
    written = Written()
    cycle = cycle_over(written)
    await cycle.send(head((b"content-length", b"5")))
    await cycle.send(body(b"12", more=True))
    await cycle.send(body(b"345"))
    assert [part[-3:] for part in written.writes] == [b"\n12", b"345"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_head_that_nothing_may_follow_goes_at_once(method: str) -> None:
    written = Written()
    cycle = cycle_over(written, method)
    await cycle.send(head(*([(b"content-length", b"5")] if method == "HEAD" else [])))
    assert len(written.writes) == 1
    assert cycle.transport is written  # pyright: ignore[reportUnnecessaryComparison]


async def test_a_client_that_waits_to_be_told_to_go_on_is_told_at_once() -> None:
    written = Written()
    cycle = cycle_over(written, "POST", expects=True)
    cycle.message_event.set()
    await cycle.receive()
    assert written.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    await cycle.send(head((b"content-length", b"1")))
    await cycle.send(body(b"1"))
    assert written.writes[1:] == [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1"]


async def test_a_head_whose_body_does_not_come_goes_before_the_end() -> None:
    written = Written()
    cycle = cycle_over(written)
    await cycle.send(head((b"content-length", b"5")))
    cycle.transport.close()
    assert written.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"]
    assert written.closed
