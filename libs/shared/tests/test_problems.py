"""Problem details: every error of ours has its status and code, and none tells more than it should."""

import json
from itertools import chain

import pytest

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
        (errors.RunFinished(), 409), (errors.RunNotFinished(), 409), (errors.RunIdTaken(), 409), (errors.LeaseLost(), 409),
        (errors.EventsGone(5), 410), (errors.IdempotencyKeyReused(), 422), (errors.DatabaseAway(), 503), (errors.DatabaseBusy(), 503),
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
    assert json.loads(made.body) == {
        "type": "urn:juinie:problem:invalid", "title": "Unprocessable Content", "status": 422, "detail": "Some values are wrong.",
        "code": "invalid", "trace_id": None, "errors": [{"pointer": "/events/0/type", "code": "pattern", "detail": "No such type."}],
    }  # fmt: skip
    assert made.headers["Content-Type"] == "application/problem+json"


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
