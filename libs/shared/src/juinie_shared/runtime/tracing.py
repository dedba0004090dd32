"""Traces: standard `OTEL_*` settings, exported over OTLP/HTTP in the background.

Without an endpoint nothing is exported, but every request still has a trace id, which goes with its events through
the outbox row and the Kafka header.
"""

import os
import secrets
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import override

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from juinie_shared.runtime.unrecorded import ROOT, DrawnIds, Unrecorded

LAST_SPANS_SECONDS = 2.0
"""How long a process that stops waits for its last spans to go out."""

MOST_LINKS = 64
"""Of a span."""

_FLAGS = slice(54, 55)
"""Where a `traceparent` has the last digit of its flags, of which the last bit says whether it is sampled."""
_SAMPLED = frozenset("13579bdf")
_HEADERS = (b"traceparent", b"tracestate")
_PROPAGATOR = TraceContextTextMapPropagator()


class PromptSpanProcessor(BatchSpanProcessor):
    """Batches as the SDK does. A collector that is away does not hold up the end of the process, as it would for 30 s."""

    @override
    def shutdown(self) -> None:
        self._batch_processor.shutdown(timeout_millis=int(LAST_SPANS_SECONDS * 1000))


def configure_tracing(service: str) -> TracerProvider:
    """The tracer provider of this process, handed over and not set globally: tests build several.

    `OTEL_TRACES_SAMPLER` and the rest are read by the SDK itself.
    """
    provider = TracerProvider(
        resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", service)}),
        id_generator=DrawnIds(),
    )
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        # Loaded for those who export: with Protocol Buffers it is a tenth of what a service imports.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(PromptSpanProcessor(OTLPSpanExporter()))
    else:
        provider.sampler = Unrecorded(provider.sampler)
    return provider


def current_traceparent() -> str | None:
    """The current span as W3C `traceparent` (Trace Context, §3.2), or None outside a span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def trace_id_of(traceparent: str | None) -> str:
    """The trace that an answer names: the current span's, else the caller's (its `traceparent`), else a new one.

    The last two are for refusals in front, which have no span: there may be very many.
    """
    context = trace.get_current_span().get_span_context()
    if not context.is_valid and traceparent is not None:
        context = trace.get_current_span(_PROPAGATOR.extract({"traceparent": traceparent})).get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else secrets.token_hex(16)


def parent_of(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """What the span of a request is begun in: its caller's trace, by its headers (names in lower case, as in ASGI), else one of its own."""
    sent = {name.decode(): value.decode("latin-1") for name, value in headers if name in _HEADERS}
    return _PROPAGATOR.extract(sent) if sent else ROOT


@contextmanager
def recorded_span(
    tracer: trace.Tracer, name: str, kind: trace.SpanKind, attributes: Mapping[str, str] | None = None
) -> Generator[trace.Span]:
    """A span that begins a trace, and is current within where somebody records it. Of one that nobody does, only the beginning is paid
    for: for what has no children elsewhere.
    """
    span = tracer.start_span(name, ROOT, kind, attributes)
    if not span.is_recording():
        yield span
        return
    with trace.use_span(span, end_on_exit=True):
        yield span


def link_sampled(span: trace.Span, traceparents: Iterable[str | None]) -> None:
    """Link a span to the sampled spans that these name, each once, `MOST_LINKS` at most. Costs nothing where nobody records the span."""
    if not span.is_recording():
        return
    sampled = (name for name in dict.fromkeys(traceparents) if name and name[_FLAGS] in _SAMPLED)
    contexts = (
        trace.get_current_span(_PROPAGATOR.extract({"traceparent": name})).get_span_context()
        for name in sampled
    )
    for context in islice((context for context in contexts if context.is_valid), MOST_LINKS):
        span.add_link(context)
