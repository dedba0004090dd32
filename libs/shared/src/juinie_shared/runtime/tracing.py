"""Traces: standard `OTEL_*` settings, exported over OTLP/HTTP in the background.

Without an endpoint nothing is exported, but every request still has a trace id, which goes with its events through
the outbox row and the Kafka header.
"""

import os
import secrets
from typing import override

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

LAST_SPANS_SECONDS = 2.0
"""How long a process that stops waits for its last spans to go out."""

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
        resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", service)})
    )
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        # Loaded for those who export: with Protocol Buffers it is a tenth of what a service imports.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(PromptSpanProcessor(OTLPSpanExporter()))
    return provider


def current_traceparent() -> str | None:
    """The current span as W3C `traceparent`, or None outside a span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def trace_id_of(traceparent: str | None) -> str:
    """The trace that an answer names: the current span's, else the caller's (its `traceparent`), else a new one.

    The last two are for refusals in front, which have no span: there may be very many.
    """
    context = trace.get_current_span().get_span_context()
    if not context.is_valid and traceparent is not None:
        context = trace.get_current_span(_PROPAGATOR.extract({"traceparent": traceparent})).get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else secrets.token_hex(16)


def span_link(traceparent: str | None) -> trace.Link | None:
    """A link to the sampled span that a `traceparent` names; None when it names none, or one nobody recorded."""
    if traceparent is None:
        return None
    context = trace.get_current_span(_PROPAGATOR.extract({"traceparent": traceparent})).get_span_context()
    return trace.Link(context) if context.is_valid and context.trace_flags.sampled else None
