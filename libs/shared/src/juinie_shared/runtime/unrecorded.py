"""Spans that nobody records, which are nearly all of them where few traces are sampled: they have their ids and their flags, and nothing else is made."""

from random import getrandbits
from typing import Any, override

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import INVALID_TRACE_ID, NonRecordingSpan, SpanContext, SpanKind, TraceFlags

ROOT = Context()
"""Of a span that begins a trace, whatever is current."""

_LIMIT = TraceIdRatioBased.TRACE_ID_LIMIT
_FLAGS = (
    TraceFlags(TraceFlags.RANDOM_TRACE_ID),
    TraceFlags(TraceFlags.RANDOM_TRACE_ID | TraceFlags.SAMPLED),
)


class _Unseen:
    """A decision that the SDK has no word for: what goes on with the trace may be recorded elsewhere, this span is not."""

    @staticmethod
    def is_sampled() -> bool:
        return True

    @staticmethod
    def is_recording() -> bool:
        return False


_UNSEEN: Any = _Unseen()


class Unrecorded(Sampler):
    """As another sampler, where nobody would see what a span records."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    @override
    def should_sample(self, *args: Any, **named: Any) -> SamplingResult:
        result = self.sampler.should_sample(*args, **named)
        if result.decision.is_sampled():
            result.decision = _UNSEEN
        return result

    @override
    def get_description(self) -> str:
        return f"Unrecorded{{{self.sampler.get_description()}}}"


class DrawnIds(RandomIdGenerator):
    """Gives the trace id that was drawn, once; else one of its own. For one thread."""

    drawn = INVALID_TRACE_ID

    @override
    def generate_trace_id(self) -> int:
        drawn, self.drawn = self.drawn, INVALID_TRACE_ID
        return drawn or super().generate_trace_id()


class QuickTracer(trace.Tracer):
    """As the provider's own. But where a trace begins, and the sampler goes by its id alone, the id is drawn first, and the SDK is asked
    for a span only where somebody records it. For one thread.
    """

    def __init__(self, provider: TracerProvider, name: str) -> None:
        """Of a provider whose ids are `DrawnIds`: any other's spans are all made by the SDK."""
        self._sdk: trace.Tracer = provider.get_tracer(name)
        self._ids: Any = provider.id_generator
        self._recorded = not isinstance(provider.sampler, Unrecorded)
        drawn = isinstance(self._ids, DrawnIds) and not isinstance(self._sdk, trace.NoOpTracer)
        self._bound = _bound_of(provider.sampler) if drawn else None

    @override
    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,
        *args: Any,
        **named: Any,
    ) -> trace.Span:
        if self._bound is not None and _begins_a_trace(context):
            trace_id = getrandbits(128) or 1
            is_sampled = trace_id & _LIMIT < self._bound
            if not (is_sampled and self._recorded):
                return NonRecordingSpan(
                    SpanContext(trace_id, getrandbits(64) or 1, False, _FLAGS[is_sampled])
                )
            self._ids.drawn = trace_id
        return self._sdk.start_span(name, context, kind, attributes, *args, **named)

    @override
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,
        links: Any = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Any:
        on_exception = (record_exception, set_status_on_exception)
        span = self.start_span(name, context, kind, attributes, links, start_time, *on_exception)
        return trace.use_span(span, end_on_exit, *on_exception)


def _begins_a_trace(context: Context | None) -> bool:
    return context is ROOT or not trace.get_current_span(context).get_span_context().is_valid


def _bound_of(sampler: Sampler) -> int | None:
    """A trace that begins is sampled where the lower half of its id is less. None: more than the id is asked for."""
    if isinstance(sampler, Unrecorded):
        sampler = sampler.sampler
    root = getattr(sampler, "_root", None) if _decides_as(sampler, ParentBased) else sampler
    if isinstance(root, TraceIdRatioBased) and _decides_as(root, TraceIdRatioBased):
        return root.bound
    return _LIMIT + 1 if root is ALWAYS_ON else 0 if root is ALWAYS_OFF else None


def _decides_as(sampler: Sampler, cls: type[Sampler]) -> bool:
    """Another may be made of this class that asks for more."""
    return type(sampler).should_sample is cls.should_sample
