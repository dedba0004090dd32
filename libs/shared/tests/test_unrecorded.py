"""A span that nobody records is as the SDK's, and the SDK is not asked for it."""

from typing import Any, override

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

from juinie_shared.runtime.tracing import configure_tracing
from juinie_shared.runtime.unrecorded import ROOT, DrawnIds, QuickTracer, Unrecorded

HALF = TraceIdRatioBased(0.5)
PARENTS = [
    trace.SpanContext(7, 8, is_remote=is_remote, trace_flags=trace.TraceFlags(flags))
    for is_remote in (True, False)
    for flags in (0, 1)
]


def provider_of(
    sampler: Sampler, ids: IdGenerator | None = None
) -> tuple[TracerProvider, InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, id_generator=ids or DrawnIds())
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider, spans


class Asked(Sampler):
    """A sampler that says how often it was asked. It is none of those that are known."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler, self.times = sampler, 0

    @override
    def should_sample(self, *args: Any, **named: Any) -> SamplingResult:
        self.times += 1
        return self._sampler.should_sample(*args, **named)

    @override
    def get_description(self) -> str:
        return "Asked"


def never_asked(monkeypatch: pytest.MonkeyPatch, *samplers: Sampler) -> None:
    def asked(*_: object, **__: object) -> None:
        pytest.fail("asked")

    for sampler in samplers:
        monkeypatch.setattr(sampler, "should_sample", asked)


@pytest.mark.parametrize("sampler", [HALF, ParentBased(HALF)], ids=["ratio", "by the parent, else ratio"])
def test_the_traces_that_begin_here_are_sampled_by_their_ids_as_the_sdk_does(sampler: Sampler) -> None:
    provider, spans = provider_of(sampler)
    tracer = QuickTracer(provider, "test")
    begun = [tracer.start_span("a", ROOT) for _ in range(200)]
    contexts = [span.get_span_context() for span in begun]
    for span in begun:
        span.end()

    sampled = [HALF.should_sample(None, context.trace_id, "a").decision.is_sampled() for context in contexts]
    assert [context.trace_flags.sampled for context in contexts] == sampled
    assert [span.is_recording() for span in begun] == [False] * 200  # ended, or never recorded
    assert [span.context.trace_id for span in spans.get_finished_spans() if span.context] == [
        context.trace_id for context, told in zip(contexts, sampled, strict=True) if told
    ]
    assert 0 < sum(sampled) < 200
    assert (
        len({context.trace_id for context in contexts})
        == len({context.span_id for context in contexts})
        == 200
    )
    assert all(context.is_valid and not context.is_remote for context in contexts)
    assert {context.trace_flags.random_trace_id for context in contexts} == {True}


@pytest.mark.parametrize(
    "sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF), TraceIdRatioBased(0), Unrecorded(ParentBased(ALWAYS_ON))],
    ids=["never", "by the parent, else never", "none of them", "no collector"],
)  # fmt: skip
def test_the_sdk_is_not_asked_for_what_nobody_records(
    monkeypatch: pytest.MonkeyPatch, sampler: Sampler
) -> None:
    provider, _ = provider_of(sampler)
    never_asked(monkeypatch, sampler)
    span = QuickTracer(provider, "test").start_span("a")

    assert not span.is_recording()
    assert span.get_span_context().is_valid
    assert span.get_span_context().trace_flags.sampled is isinstance(sampler, Unrecorded)


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize(
    "sampler", [HALF, ParentBased(ALWAYS_OFF), ParentBased(ALWAYS_ON), Unrecorded(ParentBased(ALWAYS_ON))],
    ids=["ratio", "never", "always", "no collector"],
)  # fmt: skip
@pytest.mark.parametrize("current", [False, True], ids=["given", "current"])
def test_a_trace_that_goes_on_here_is_sampled_as_the_sdk_does(
    sampler: Sampler, parent: trace.SpanContext, current: bool
) -> None:
    provider, _ = provider_of(sampler)
    before = trace.NonRecordingSpan(parent)
    context = None if current else trace.set_span_in_context(before)
    with trace.use_span(before if current else trace.INVALID_SPAN):
        theirs, ours = (
            tracer.start_span("b", context)
            for tracer in (provider.get_tracer("test"), QuickTracer(provider, "test"))
        )

    assert ours.get_span_context().trace_id == theirs.get_span_context().trace_id == 7
    assert ours.get_span_context().trace_flags == theirs.get_span_context().trace_flags
    assert ours.is_recording() == theirs.is_recording()


def test_a_root_begins_a_trace_whatever_is_current() -> None:
    provider, _ = provider_of(ParentBased(ALWAYS_ON))
    with trace.use_span(trace.NonRecordingSpan(PARENTS[0])):
        span = QuickTracer(provider, "test").start_span("a", ROOT)

    assert span.get_span_context().trace_id != PARENTS[0].trace_id
    assert span.is_recording()


def test_a_sampler_that_nobody_knows_is_asked_each_time_and_told_all() -> None:
    sampler = Asked(ALWAYS_OFF)
    tracer = QuickTracer(provider_of(sampler)[0], "test")
    for _ in range(3):
        tracer.start_span("a", ROOT)

    assert sampler.times == 3


def test_ids_of_another_kind_are_left_to_the_sdk() -> None:
    class Seven(RandomIdGenerator):
        @override
        def generate_trace_id(self) -> int:
            return 7

    provider, _ = provider_of(ParentBased(HALF), Seven())
    begun = [QuickTracer(provider, "test").start_span("a", ROOT) for _ in range(20)]

    assert {span.get_span_context().trace_id for span in begun} == {7}


def test_an_id_that_was_drawn_is_given_once() -> None:
    provider, _ = provider_of(ALWAYS_ON)
    ours = QuickTracer(provider, "test").start_span("a", ROOT)
    others = [provider.get_tracer("other").start_span("b", ROOT) for _ in range(2)]

    assert len({span.get_span_context().trace_id for span in (ours, *others)}) == 3


@pytest.mark.parametrize("cls", [TraceIdRatioBased, ParentBased])
def test_a_sampler_that_is_made_of_one_that_is_known_is_asked(cls: type[Sampler]) -> None:
    class Never(cls):
        @override
        def should_sample(self, *args: Any, **named: Any) -> SamplingResult:
            return ALWAYS_OFF.should_sample(*args, **named)

    sampler = Never(1.0) if cls is TraceIdRatioBased else Never(ALWAYS_ON)  # pyright: ignore[reportCallIssue] - a Sampler takes nothing
    tracer = QuickTracer(provider_of(sampler)[0], "test")

    assert not tracer.start_span("a", ROOT).get_span_context().trace_flags.sampled


def test_where_traces_are_off_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    span = QuickTracer(configure_tracing("juinie-test"), "test").start_span("a", ROOT)

    assert not span.get_span_context().is_valid


@pytest.mark.parametrize(
    ("name", "ratio", "sampled"),
    [
        ("always_on", "", {True}),
        ("always_off", "", {False}),
        ("traceidratio", "0.5", {False, True}),
        ("parentbased_always_on", "", {True}),
        ("parentbased_always_off", "", {False}),
        ("parentbased_traceidratio", "0.5", {False, True}),
    ],
)
def test_each_sampler_that_has_a_name_goes_by_ids_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, ratio: str, sampled: set[bool]
) -> None:
    """Which breaks where the SDK names its parts otherwise: then spans are right still, and dear."""
    for endpoint in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(endpoint, raising=False)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    provider = configure_tracing("juinie-test")
    never_asked(monkeypatch, provider.sampler)
    tracer = QuickTracer(provider, "test")
    begun = {tracer.start_span("a", ROOT).get_span_context().trace_flags.sampled for _ in range(100)}

    assert begun == sampled


def test_a_current_span_is_told_with_its_beginning_and_its_error() -> None:
    provider, spans = provider_of(ALWAYS_ON)
    tracer = QuickTracer(provider, "test")
    begins = tracer.start_as_current_span("a", ROOT, attributes={"b": "c"}, start_time=5)

    def fail() -> None:
        with begins as span:
            assert trace.get_current_span() is span
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (ended,) = spans.get_finished_spans()
    assert (ended.start_time, ended.attributes, [event.name for event in ended.events]) == (
        5, {"b": "c"}, ["exception"],
    )  # fmt: skip
    assert trace.get_current_span() is trace.INVALID_SPAN
