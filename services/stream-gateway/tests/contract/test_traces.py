"""One span a stream, which continues the client's trace; one a poll, linked to the spans that appended."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id

from juinie_stream_gateway import app
from juinie_stream_gateway.settings import Settings
from juinie_testkit.running import running
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import await_stream_completion
from juinie_testkit.watcher import Watcher

CLIENT_TRACE, APPEND_TRACE = "1" * 32, "2" * 32


def traceparent(trace_id: str) -> str:
    return f"00-{trace_id}-{'3' * 16}-01"


async def test_streams_and_polls_are_traced(
    topic, settings_with: Callable[..., Settings], seed: Seed, key: SeededKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(app, "configure_tracing", lambda _service: provider)
    run_id = await seed.run(key)
    async with running(app.serve, settings_with()) as service:
        headers = {"traceparent": traceparent(CLIENT_TRACE)}
        async with Watcher(service.url, run_id, key=key.text, headers=headers) as watcher:
            await watcher.until_caught_up()
            end = await seed.finish(run_id)
            (record,) = await topic.records(run_id, end, end)
            await topic.put(replace(record, traceparent=traceparent(APPEND_TRACE)))
            await await_stream_completion(watcher)
    stream, poll = (
        [span for span in spans.get_finished_spans() if span.name == name] for name in ("stream", "poll")
    )
    assert [format_trace_id(span.context.trace_id) for span in stream] == [CLIENT_TRACE]
    assert dict(stream[0].attributes) == {
        "run_id": str(run_id), "after_seq": 0, "last_seq": end, "refills": 1, "reason": "ended",
    }  # fmt: skip
    linked = [format_trace_id(link.context.trace_id) for span in poll for link in span.links]
    assert linked == [APPEND_TRACE]
