"""What can go wrong, as one tree.

JuinieError
├── NoAnswer          no answer in time: what was asked may have been done, once, or not at all
└── Refused           an answer that will stay the same
    ├── NotFound
    ├── RunFinished
    ├── RunFull
    ├── LeaseLost
    └── Unreadable    something that is no answer of Juinie's
"""

from dataclasses import dataclass
from typing import Any


class JuinieError(Exception):
    """Something that this client raises."""


@dataclass
class NoAnswer(JuinieError):
    """No answer came, though the request was repeated. Repeat it later, with the same Idempotency-Key."""

    why: str

    def __str__(self) -> str:
        return f"No answer in time, the last try ended with: {self.why}"


@dataclass
class Refused(JuinieError):
    """Juinie refused. `code` is stable, `detail` is for people, `problem` is the whole answer.

    `after_no_answer`: an earlier try of the same request got none, so this is no proof that nothing was done.
    """

    status: int
    code: str
    detail: str
    problem: dict[str, Any]
    after_no_answer: bool = False
    retry_after_seconds: float = 0.0
    """When to come again, where the answer may be another one then; 0 where it does not say."""

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"


class NotFound(Refused):
    """There is no such run, or it is another tenant's."""


class RunFinished(Refused):
    """The run has ended: nothing can be added to it."""


class RunFull(Refused):
    """The run has as many events as it may, or would have with these: it can only be finished."""


class LeaseLost(Refused):
    """Another worker has the run by now, or its time ran out: stop working on it."""


class Unreadable(Refused):
    """The answer is not one that Juinie gives: something else answers at this address."""


_BY_CODE = {
    "run_not_found": NotFound,
    "run_finished": RunFinished,
    "run_full": RunFull,
    "lease_lost": LeaseLost,
}


def refusal(
    status: int, problem: dict[str, Any], after_no_answer: bool = False, retry_after_seconds: float = 0.0
) -> Refused:
    """The error for an answer's status and problem document, which is empty where something else answered."""
    code, detail = str(problem.get("code", "unknown")), str(problem.get("detail", "no problem document"))
    return _BY_CODE.get(code, Refused)(status, code, detail, problem, after_no_answer, retry_after_seconds)


def unreadable(status: int, what: str) -> Unreadable:
    """The error for an answer that cannot be read; `what` is the matter with it."""
    return Unreadable(status, "unreadable", f"{what}: is this the address of a Juinie?", {})
