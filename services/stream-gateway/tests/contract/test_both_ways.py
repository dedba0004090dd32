"""A stream of the gateway has the same bytes straight to the transport and through ASGI: head, backfill, live events, end."""

from typing import Any
from uuid import UUID

import pytest

from juinie_stream_gateway.edges.connection import HttpConnection
from juinie_testkit.raw_stream import RawStream, connect_raw, stream_request, unchunked
from juinie_testkit.running import RunningService
from juinie_testkit.scrape import until_metric
from juinie_testkit.seed import Seed, SeededKey

THROUGH_ASGI = b"x-way: asgi"


@pytest.fixture
def two_ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """From now on, who asks with `THROUGH_ASGI` is lent no way to the transport. Gives, by connection, whether it was lent one."""
    begin, lent = HttpConnection.__init__, list[bool]()

    def of_both(connection: HttpConnection, scope: dict[str, Any], *others: Any) -> None:
        way = scope["extensions"]["juinie.transport"]
        if tuple(THROUGH_ASGI.split(b": ")) in scope["headers"]:
            way = {name: part for name, part in way.items() if name != "body"}
        lent.append("body" in way)
        begin(connection, {**scope, "extensions": {"juinie.transport": way}}, *others)

    monkeypatch.setattr(HttpConnection, "__init__", of_both)
    return lent


async def caught_up(port: int, request: bytes) -> RawStream:
    """A stream that is live: where its pages end shows in cursors, which nobody promises."""
    stream = await connect_raw(port)
    await stream.send(request)
    await stream.read_until(b"event: stream.caught_up\n")
    return stream


async def everything(stream: RawStream) -> bytes:
    received = await stream.read_all()
    stream.leave()
    return received


def parts(received: bytes) -> tuple[bytes, bytes]:
    """The head, and the body out of its chunks."""
    head, _, chunks = received.partition(b"\r\n\r\n")
    return head, unchunked(chunks)


def requests(run_id: UUID, key: str) -> list[bytes]:
    """From the start, from within, of one type, and from what is to come."""
    whole = [stream_request(run_id, key, 0), stream_request(run_id, key, 7)]
    some = [
        whole[0].replace(b"?after_seq=0", query)
        for query in (b"?after_seq=0&types=image", b"?after_seq=tail")
    ]
    return [request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") for request in whole + some]


async def test_streams_have_the_same_bytes_on_both_ways(
    two_ways: list[bool], topic, gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    await until_metric(gateway.url, 'juinie_stream_mode{mode="live"}', 1, 20)
    run_id = await seed.run(key)
    await seed.append(run_id, *[("image" if i % 5 == 0 else "text", "x" * 60 * i) for i in range(200)])
    direct = requests(run_id, key.text)
    through_asgi = [request.replace(b"\r\nHost", b"\r\n" + THROUGH_ASGI + b"\r\nHost") for request in direct]
    port = int(gateway.url.rpartition(":")[2])
    streams = [await caught_up(port, request) for request in direct + through_asgi]
    for i in range(30):
        first, last = await seed.append(
            run_id, ("image" if i % 7 == 0 else "text", i), ("text", "y" * 90 * i)
        )
        await topic.publish(run_id, first, last)
    await topic.publish(run_id, await seed.finish(run_id))
    answers = [parts(await everything(stream)) for stream in streams]
    assert sorted(two_ways) == [False] * len(direct) + [True] * len(direct)
    for (head, body), (other_head, other_body) in zip(
        answers[: len(direct)], answers[len(direct) :], strict=True
    ):
        assert head == other_head
        assert body == other_body
        assert b"stream.end" in body
