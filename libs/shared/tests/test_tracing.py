"""Traces never stand in the way of the process that makes them."""

import socket
import threading
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from juinie_shared.runtime.tracing import (
    LAST_SPANS_SECONDS,
    configure_tracing,
    link_sampled,
    parent_of,
    recorded_span,
)


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


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())


def test_a_request_goes_on_with_its_callers_trace() -> None:
    parent = trace.get_current_span(
        parent_of([(b"host", b"x"), TRACEPARENT, (b"tracestate", b"a=b")])
    ).get_span_context()
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == (TRACE, SPAN)
    assert parent.trace_state.to_header() == "a=b"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"x")],
        [(b"tracestate", b"a=b")],
        [(b"traceparent", b"\xff")],
        [(b"traceparent", TRACEPARENT[1][:-1])],
    ],
)
def test_a_request_without_a_callers_trace_begins_its_own_whatever_is_current(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with trace.use_span(TracerProvider().get_tracer("test").start_span("current")):
        assert not trace.get_current_span(parent_of(headers)).get_span_context().is_valid


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


def test_a_span_is_linked_to_the_sampled_ones_however_many_others_there_are() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    unsampled = [f"00-{n:032x}-{n:016x}-00" for n in range(1000, 1200)]
    sampled = [f"00-{n:032x}-{n:016x}-01" for n in range(1, 71)]
    badly_made = ["00-x-01", f"00-{0:032x}-{7:016x}-01", ""]
    with provider.get_tracer("test").start_as_current_span("poll") as span:
        link_sampled(span, [*unsampled, None, *badly_made, sampled[0], *sampled])
    (ended,) = spans.get_finished_spans()
    assert [link.context.trace_id for link in ended.links] == list(range(1, 65))


def test_for_a_span_that_nobody_records_no_trace_is_looked_at() -> None:
    def untouched() -> Iterator[str]:
        pytest.fail("looked at")
        yield ""

    link_sampled(trace.INVALID_SPAN, untouched())


@pytest.mark.parametrize(("sampler", "told"), [(ALWAYS_ON, ["poll"]), (ALWAYS_OFF, [])])
def test_a_span_is_current_and_told_where_somebody_records_it(sampler: Sampler, told: list[str]) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with recorded_span(provider.get_tracer("test"), "poll", trace.SpanKind.CONSUMER, {"a": "b"}) as span:
        assert (trace.get_current_span() is span) is bool(told)
    assert [ended.name for ended in spans.get_finished_spans()] == told
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_recorded_span_tells_what_befell_within() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with (
        pytest.raises(ZeroDivisionError),
        recorded_span(provider.get_tracer("test"), "poll", trace.SpanKind.CONSUMER),
    ):
        raise ZeroDivisionError
    (ended,) = spans.get_finished_spans()
    assert [event.name for event in ended.events] == ["exception"]
