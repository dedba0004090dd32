"""Traces never stand in the way of the process that makes them."""

import socket
import threading

import pytest
from opentelemetry import trace

from juinie_shared.runtime.tracing import LAST_SPANS_SECONDS, configure_tracing


def test_a_collector_that_never_answers_does_not_hold_up_the_end_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        provider = configure_tracing("juinie-test")
        provider.get_tracer("test").start_span("a").end()

        closing = threading.Thread(target=provider.shutdown)
        closing.start()
        closing.join(LAST_SPANS_SECONDS + 3)  # the exporter alone would try for ten

        assert not closing.is_alive()


def test_spans_that_nobody_sees_have_ids_and_flags_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)
    tracer = configure_tracing("juinie-test").get_tracer("test")
    span = tracer.start_span("a")
    parents = [
        trace.SpanContext(7, 8, is_remote=True, trace_flags=trace.TraceFlags(flags)) for flags in (0, 1)
    ]
    children = [
        tracer.start_span("b", trace.set_span_in_context(trace.NonRecordingSpan(parent))).get_span_context()
        for parent in parents
    ]

    assert not span.is_recording()
    assert span.get_span_context().is_valid
    assert span.get_span_context().trace_flags.sampled
    assert [child.trace_id for child in children] == [7, 7]
    assert [child.trace_flags.sampled for child in children] == [False, True]
