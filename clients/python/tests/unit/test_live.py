"""A gateway reads Kafka when it counts what Kafka brought: one that shows every event without it is found out."""

from collections.abc import Sequence

import httpx

from juinie.client import Client
from juinie.torture.live import Live

STREAM = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=b": juinie\n\n")


def live(*counts: int | None) -> Live:
    """Of one gateway that shows these counts, and the last for ever; None: no series yet."""
    coming = list(counts)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/metrics":
            return STREAM
        count = coming.pop(0) if len(coming) > 1 else coming[0]
        series = "" if count is None else f'juinie_stream_records_total{{verdict="next"}} {count}.0\n'
        return httpx.Response(200, text=f"# HELP juinie_stream_records_total Records.\n{series}")

    return of(answer)


def of(answer: object, streams: Sequence[str] = ("http://juinie.test",)) -> Live:
    client = Client("http://juinie.test", list(streams), "jn_x", transport=httpx.MockTransport(answer))  # type: ignore[arg-type]

    async def append() -> None: ...

    return Live(client, "run", append)


async def test_count_that_rises_is_read_from_kafka() -> None:
    assert await live(7, 7, 8).until_live(20) is not None
    assert await live(None, None, 1).until_live(20) is not None


async def test_count_that_stands_still_is_not() -> None:
    assert await live(7).until_live(0.7) is None


async def test_new_process_begins_at_zero_and_has_to_rise_from_there() -> None:
    assert await live(7, 0, 0, 2).until_live(20) is not None
    assert await live(7, 0).until_live(0.7) is None


async def test_every_gateway_has_to() -> None:
    counts = {"one": iter(range(1000)), "two": iter([5] * 1000)}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/metrics":
            return STREAM
        count = next(counts[request.url.host])
        series = f'juinie_stream_records_total{{verdict="next"}} {count}.0\n'
        return httpx.Response(200, text=f"# HELP juinie_stream_records_total Records.\n{series}")

    assert await of(answer, ("http://one", "http://two")).until_live(0.7) is None


async def test_gateway_of_several_processes_reads_when_one_of_them_does() -> None:
    counts = iter(range(1000))

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/metrics":
            return STREAM
        text = (
            "# HELP juinie_stream_records_total Records.\n"
            'juinie_stream_records_total{process="0",verdict="next"} 5.0\n'
            f'juinie_stream_records_total{{process="1",verdict="next"}} {next(counts)}.0\n'
            'juinie_stream_records_total{process="1",verdict="seen"} 1.0\n'
        )
        return httpx.Response(200, text=text)

    assert await of(answer).until_live(20) is not None


async def test_metrics_out_of_reach_tell_nothing() -> None:
    assert await live(None).may_look()
    assert not await of(lambda _: httpx.Response(404)).may_look()
    assert not await of(lambda _: httpx.Response(200, text="something else")).may_look()
