"""Problem details: every error of ours has its status and code, and none tells more than it should."""

import json
import re
from itertools import chain

import pytest
from opentelemetry import trace

from juinie_shared.domain import errors
from juinie_shared.runtime.problems import Fault, problem, problem_of, status_of


def tree(cls: type[errors.JuinieError]) -> list[type[errors.JuinieError]]:
    children = [child for child in cls.__subclasses__() if child.__module__ == errors.__name__]
    return [cls, *chain.from_iterable(tree(child) for child in children)]


def test_codes_are_stable_words_of_one_error_each():
    codes = [
        cls.code for cls in tree(errors.JuinieError) if "code" in vars(cls)
    ]  # others are their parent's kind
    assert len(set(codes)) == len(codes)


def test_docstring_at_the_top_names_every_error():
    drawn = errors.__doc__ or ""
    assert [cls.__name__ for cls in tree(errors.JuinieError) if cls.__name__ not in drawn] == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BadPosition(), 400), (errors.NotAuthenticated(), 401), (errors.ScopeMissing("write"), 403), (errors.RunNotFound(), 404),
        (errors.RunFinished(), 409), (errors.RunNotFinished(), 409), (errors.RunIdTaken(), 409), (errors.LeaseLost(), 409), (errors.RunFull(), 409),
        (errors.EventsGone(5), 410), (errors.IdempotencyKeyReused(), 422), (errors.DatabaseAway(), 503), (errors.DatabaseBusy(), 503), (errors.ServerBusy(), 503), (errors.SchemaAway(), 503),
        (errors.RunLocked(), 503), (errors.KafkaAway(), 503), (errors.Draining(), 503), (errors.SchemaBehind(None, "1"), 500),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_error_has_its_status(error: errors.JuinieError, status: int):
    assert status_of(error) == problem_of(error).status == status


def test_problem_is_whole():
    made = problem(
        422, "invalid", "Some values are wrong.", [Fault("/events/0/type", "pattern", "No such type.")]
    )
    told = json.loads(made.body)
    assert re.fullmatch("[0-9a-f]{32}", told.pop("trace_id"))
    assert told == {
        "type": "urn:juinie:problem:invalid", "title": "Unprocessable Content", "status": 422, "detail": "Some values are wrong.",
        "code": "invalid", "errors": [{"pointer": "/events/0/type", "code": "pattern", "detail": "No such type."}],
    }  # fmt: skip
    assert made.headers["Content-Type"] == "application/problem+json"


def trace_of(**arguments: str | None) -> str:
    return json.loads(problem(404, "not_found", "There is nothing.", **arguments).body)["trace_id"]  # pyright: ignore[reportArgumentType] - the one there is


def test_trace_is_the_spans_else_the_callers_else_a_new_one():
    caller, own = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
    traceparent = f"00-{caller}-00f067aa0ba902b7-00"
    assert trace_of(traceparent=traceparent) == caller
    context = trace.SpanContext(int(own, 16), 1, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert trace_of(traceparent=traceparent) == trace_of() == own
    for none in (None, "", "nonsense", f"00-{'0' * 32}-00f067aa0ba902b7-00", traceparent.upper() + "x" * 99):
        assert trace_of(traceparent=none) not in {caller, trace_of(traceparent=none), "0" * 32}


def test_of_very_many_faults_the_first_are_told():
    faults = [Fault(f"/{n}", "unknown_field", "There is no such field.") for n in range(100_000)]
    told = json.loads(problem(422, "invalid", "The body has faults.", faults).body)
    assert [fault["pointer"] for fault in told["errors"]] == [f"/{n}" for n in range(100)]
    assert told["detail"] == "The body has faults. There are more than the 100 that are told."


def test_challenge_and_retry_come_with_their_statuses():
    assert problem_of(errors.NotAuthenticated()).headers["WWW-Authenticate"] == "Bearer"
    assert problem_of(errors.DatabaseAway()).headers["Retry-After"] == "1"
    assert "Retry-After" not in problem_of(errors.RunNotFound()).headers


def test_gone_events_say_from_where_there_are_some():
    assert json.loads(problem_of(errors.EventsGone(7)).body)["retained_from_seq"] == 7


def test_fault_of_ours_says_nothing_of_itself():
    body = problem_of(errors.Misconfigured("postgresql://juinie:hunter2@db")).body
    assert json.loads(body)["code"] == "internal"
    assert b"hunter2" not in body
