"""A request's span, made when there is something to tell: at the end of a stream, or when there is none.

A span that is recorded takes as much memory as all else of a stream that rests; nothing is told of it before it ends. Of the time
in between only its parent and its beginning are kept.
"""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from juinie_shared.runtime.tracing import parent_of
from juinie_stream_gateway.telemetry import SPAN_STREAM


class RequestTrace:
    """Of one request, from now on."""

    __slots__ = ("_began_ns", "_tracer", "parent")

    def __init__(self, tracer: Tracer, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._tracer, self._began_ns = tracer, time.time_ns()
        self.parent: Context = parent_of(headers)

    def told(self, facts: dict[str, Any] | None = None) -> AbstractContextManager[Span]:
        """The span, with these attributes: current within, and over then. An error that comes out of it is told, too."""
        return self._tracer.start_as_current_span(
            SPAN_STREAM, self.parent, SpanKind.SERVER, facts, start_time=self._began_ns
        )


def tell_failed(span: Span, error: Exception) -> None:
    """Of an error that the span's block did not see."""
    span.record_exception(error)
    span.set_status(StatusCode.ERROR, type(error).__name__)
