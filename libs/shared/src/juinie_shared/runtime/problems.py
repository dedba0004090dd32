"""Problem details (RFC 9457): how every refusal of Juinie looks, whoever gives it.

A problem never holds a piece of the request: no value, no exception text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from juinie_shared.domain import errors as e
from juinie_shared.runtime.tracing import trace_id_of

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
MOST_FAULTS = 100
"""So many faults of a request are told: a body has room for half a million."""

STATUS_OF: dict[type[e.JuinieError], int] = {
    e.BadPosition: 400,
    e.NotAuthenticated: 401,
    e.ScopeMissing: 403,
    e.RunNotFound: 404,
    e.DeadLetterNotFound: 404,
    e.RunFinished: 409,
    e.RunNotFinished: 409,
    e.RunNotClaimed: 409,
    e.RunFull: 409,
    e.RunIdTaken: 409,
    e.LeaseLost: 409,
    e.EventsGone: 410,
    e.IdempotencyKeyReused: 422,
    e.LimitReached: 429,
    e.Transient: 503,
}
"""The HTTP status of each error that reaches a client; a subclass without its own has its parent's."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a request. `pointer` is a JSON Pointer (RFC 6901) into the body, or a parameter's name."""

    pointer: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer: status, headers and body, ready for any HTTP frame."""

    status: int
    headers: dict[str, str]
    body: bytes

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """As ASGI takes them."""
        return [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]


def status_of(error: e.JuinieError) -> int:
    return next((STATUS_OF[cls] for cls in type(error).__mro__ if cls in STATUS_OF), 500)


def problem_of(error: e.JuinieError, traceparent: str | None = None) -> Problem:
    """The problem that an error of ours becomes. `traceparent`: as `problem` takes it."""
    extra: dict[str, object] = {}
    headers: dict[str, str] = {}
    if isinstance(error, e.EventsGone):
        extra["retained_from_seq"] = error.retained_from_seq
    if isinstance(error, e.LimitReached):
        headers["Retry-After"] = str(error.retry_after_seconds)
        if error.policies:
            extra["violated-policies"] = error.policies
    status = status_of(error)
    if status >= 500 and not isinstance(error, e.Transient):
        return problem(500, "internal", "Something went wrong in Juinie.", traceparent=traceparent)
    return problem(status, error.code, error.message, extra=extra, headers=headers, traceparent=traceparent)


def problem(
    status: int,
    code: str,
    detail: str,
    faults: Sequence[Fault] = (),
    extra: dict[str, object] | None = None,
    headers: dict[str, str] | None = None,
    traceparent: str | None = None,
) -> Problem:
    """Make a problem. 401 gets its challenge and 503 and 429 their `Retry-After`, unless `headers` says otherwise.

    Of more than `MOST_FAULTS` faults the first are told, and in `detail` that there are more. `traceparent` is the request's,
    for who answers outside of any span (`trace_id_of`).
    """
    if len(faults) > MOST_FAULTS:
        detail, faults = (
            f"{detail} There are more than the {MOST_FAULTS} that are told.",
            faults[:MOST_FAULTS],
        )
    content: dict[str, object] = {
        "type": f"urn:juinie:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "trace_id": trace_id_of(traceparent),
        **(extra or {}),
    }
    if faults:
        content["errors"] = faults
    body = msgspec.json.encode(content)
    all_headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
    if status == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    if status in {429, 503}:
        all_headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Problem(status, {**all_headers, **(headers or {})}, body)
