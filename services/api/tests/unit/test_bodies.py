"""What a body may be, and that all its faults are told at once, without a piece of it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from juinie_api.edges.body import parse_body
from juinie_api.edges.limits import Limits
from juinie_api.edges.problems import Refused
from juinie_api.edges.schemas import (
    AppendBody,
    Body,
    CancelBody,
    ClaimBody,
    CreateBody,
    FinishBody,
    HeartbeatBody,
)

type Faults = list[tuple[str, str]]


def refusal(cls: type[Body], body: object, limits: Limits | None = None) -> tuple[int, Faults]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refused) as caught:
        parse_body(cls, raw, limits or Limits())
    return caught.value.status, [(fault.pointer, fault.code) for fault in caught.value.faults]


def event(**members: Any) -> dict[str, Any]:
    return {"events": [{"type": "x", **members}]}


def test_all_faults_are_told_at_once():
    body = {"agent": 7, "thread_id": "", "timeout_seconds": 0, "nope": 1, "run_id": "x", "metadata": []}
    assert refusal(CreateBody, body) == (
        422,
        [
            ("/agent", "bad_value"), ("/run_id", "bad_run_id"), ("/thread_id", "bad_length"),
            ("/metadata", "not_an_object"), ("/timeout_seconds", "bad_value"), ("/nope", "unknown_field"),
        ],
    )  # fmt: skip


def test_a_lone_surrogate_does_not_hide_other_faults():
    status, faults = refusal(AppendBody, rb'{"events":[{"type":"run.x","data":"\ud800"}],"q":1}')
    assert status == 422
    assert faults == [("", "lone_surrogate"), ("/events/0/type", "reserved_type"), ("/q", "unknown_field")]


@pytest.mark.parametrize(
    ("cls", "body", "fault"),
    [
        (AppendBody, {}, ("/events", "missing")),
        (AppendBody, {"events": []}, ("/events", "bad_value")),
        (AppendBody, {"events": {}}, ("/events", "bad_value")),
        (AppendBody, {"events": [1]}, ("/events/0", "bad_value")),
        (AppendBody, {"events": [[]]}, ("/events/0", "bad_value")),
        (AppendBody, {"events": [{}]}, ("/events/0/type", "missing")),
        (AppendBody, event(type=None), ("/events/0/type", "bad_value")),
        (AppendBody, event(type=""), ("/events/0/type", "bad_type")),
        (AppendBody, event(type="a\nb"), ("/events/0/type", "bad_type")),
        (AppendBody, event(type="a b"), ("/events/0/type", "bad_type")),
        (AppendBody, event(type="é"), ("/events/0/type", "bad_type")),
        (AppendBody, event(type="x" * 129), ("/events/0/type", "bad_type")),
        (AppendBody, event(type="run.finished"), ("/events/0/type", "reserved_type")),
        (AppendBody, event(time="2026-11-23T12:00:00"), ("/events/0/time", "bad_time")),
        (AppendBody, event(time=1), ("/events/0/time", "bad_time")),
        (AppendBody, event(id=1), ("/events/0/id", "unknown_field")),
        (AppendBody, {**event(), "start": "yes"}, ("/start", "bad_value")),
        (AppendBody, {**event(), "start": 1}, ("/start", "bad_value")),
        (CreateBody, {"agent": "a", "claim": {}}, ("/claim/worker_id", "missing")),
        (CreateBody, {"agent": "a", "claim": {"worker_id": ""}}, ("/claim/worker_id", "bad_length")),
        (
            CreateBody,
            {"agent": "a", "claim": {"worker_id": "w", "lease_seconds": 4}},
            ("/claim/lease_seconds", "bad_value"),
        ),
        (
            CreateBody,
            {"agent": "a", "claim": {"worker_id": "w", "lease_seconds": 3601}},
            ("/claim/lease_seconds", "bad_value"),
        ),
        (
            CreateBody,
            {"agent": "a", "claim": {"worker_id": "w", "wait_seconds": 1}},
            ("/claim/wait_seconds", "unknown_field"),
        ),
        (CreateBody, b'{"agent":"a","claim":{"worker_id":"w","worker_id":"x"}}', ("/claim", "repeated_name")),
        (CreateBody, {"agent": "a", "claim": [{"worker_id": "w"}]}, ("/claim", "bad_value")),
        (CreateBody, {"agent": "a", "claim": True}, ("/claim", "bad_value")),
        (AppendBody, {"events": {"type": "x"}}, ("/events", "bad_value")),
        (HeartbeatBody, {"lease_seconds": 4}, ("/lease_seconds", "bad_value")),
        (HeartbeatBody, {"lease_seconds": 3601}, ("/lease_seconds", "bad_value")),
        (HeartbeatBody, {"lease_seconds": "30"}, ("/lease_seconds", "bad_value")),
        (HeartbeatBody, {"token": "x"}, ("/token", "unknown_field")),
        (CreateBody, {"agent": "a", "timeout_seconds": True}, ("/timeout_seconds", "bad_value")),
        (CreateBody, {"agent": "a", "timeout_seconds": 1.5}, ("/timeout_seconds", "bad_value")),
        (CreateBody, {"agent": "a" * 257}, ("/agent", "bad_length")),
        (CreateBody, {"agent": "a\0b"}, ("/agent", "control_character")),
        (CreateBody, b'{"agent":"a","timeout_seconds":1e400}', ("/timeout_seconds", "bad_value")),
        (CreateBody, b'{"agent":"a","agent":"a"}', ("", "repeated_name")),
        (CreateBody, rb'{"agent":"a","\u0061gent":"a"}', ("", "repeated_name")),
        (CreateBody, b"[]", ("", "bad_value")),
        (CreateBody, b"null", ("", "bad_value")),
        (FinishBody, {"status": "timeout"}, ("/status", "bad_value")),
        (FinishBody, {}, ("/status", "missing")),
        (CancelBody, {"reason": 1}, ("/reason", "bad_value")),
    ],
)
def test_each_fault_has_its_place_and_code(cls: type[Body], body: object, fault: tuple[str, str]):
    assert refusal(cls, body) == (422, [fault])


def test_values_too_large_are_413_each_by_its_limit():
    text = "x" * 20_000
    assert refusal(CreateBody, {"agent": "a", "metadata": {"a": text}}) == (
        413,
        [("/metadata", "value_too_large")],
    )
    limits = Limits(event_bytes=100, payload_bytes=100)
    assert refusal(AppendBody, event(data=text), limits) == (413, [("/events/0/data", "value_too_large")])
    assert refusal(FinishBody, {"status": "error", "error": text}, limits)[0] == 413
    assert refusal(CreateBody, {"agent": "a", "input": text}, limits)[0] == 413


@pytest.mark.parametrize(("depth", "taken"), [(64, True), (65, False), (5_000, False)])
@pytest.mark.parametrize(
    "body_of",
    [lambda v: (AppendBody, event(data=v)), lambda v: (CreateBody, {"agent": "a", "input": v})],
)
def test_nesting_is_counted_within_each_value(depth: int, taken: bool, body_of: Callable[[Any], Any]):
    cls, body = body_of("VALUE")
    raw = json.dumps(body).encode().replace(b'"VALUE"', b"[" * depth + b"]" * depth)
    if taken:
        parse_body(cls, raw, Limits())
    else:
        assert [code for _, code in refusal(cls, raw)[1]] == ["too_deep"]


def test_white_space_does_not_change_what_a_fingerprint_is_taken_of():
    _, dense = parse_body(CreateBody, b'{"agent":"a","input":[1.0]}', Limits())
    _, loose = parse_body(CreateBody, b'{ "agent": "a",\n "input": [ 1.0 ] }', Limits())
    assert dense == loose


def test_a_made_up_name_is_not_repeated_unless_it_is_harmless():
    assert refusal(CancelBody, {"canary <script>": 1}) == (422, [("", "unknown_field")])
    assert refusal(CancelBody, {"reasons": 1}) == (422, [("/reasons", "unknown_field")])


def test_too_many_events_are_refused():
    events = {"events": [{"type": "x"}] * 1001}
    assert refusal(AppendBody, events) == (422, [("/events", "too_many_events")])


def test_too_many_events_are_one_fault_whatever_they_are():
    for cls, body in ((AppendBody, {}), (FinishBody, {"status": "success"})):
        for event in (0, {}, {"type": "run.x", "q": 1}):
            assert refusal(cls, {**body, "events": [event] * 1001}) == (422, [("/events", "too_many_events")])
    few = Limits(events=2)
    assert refusal(AppendBody, {"events": [{"type": "x"}] * 3}, few) == (
        422,
        [("/events", "too_many_events")],
    )


def test_few_faults_are_all_told_and_of_many_the_first():
    few = {"agent": 1, **{f"q{n}": 0 for n in range(99)}}
    _, told = refusal(CreateBody, few)
    assert told == [("/agent", "bad_value"), *((f"/q{n}", "unknown_field") for n in range(99))]
    with pytest.raises(Refused) as caught:
        parse_body(CreateBody, json.dumps({**few, "q99": 0}).encode(), Limits())
    problem = json.loads(caught.value.problem().body)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/agent", *(f"/q{n}" for n in range(99))]
    assert problem["detail"] == "The body has faults. There are more than the 100 that are told."


def test_faults_of_the_first_events_are_told_where_there_are_many():
    events = [{"type": "x", "q": 1, "r": 2} for _ in range(1000)]
    _, told = refusal(AppendBody, {"events": events})
    assert told[:3] == [
        ("/events/0/q", "unknown_field"),
        ("/events/0/r", "unknown_field"),
        ("/events/1/q", "unknown_field"),
    ]


@pytest.mark.parametrize("agent", [{}, {"a": 1}, [], [{}], [["x"]]])
def test_what_no_field_takes_is_a_fault_of_its_place(agent: object):
    assert refusal(CreateBody, {"agent": agent}) == (422, [("/agent", "bad_value")])
    agents = {"worker_id": "w", "agents": ["x", agent]}
    assert refusal(ClaimBody, agents) == (422, [("/agents/1", "bad_value")])
    assert refusal(CancelBody, {"reason": agent}) == (422, [("/reason", "bad_value")])
