"""Refusals that only the HTTP edge gives: what it cannot read never reaches the core."""

from collections.abc import Sequence

from starlette.responses import Response

from juinie_shared.domain.errors import JuinieError
from juinie_shared.runtime.problems import Fault, Problem, problem, problem_of


class Refused(Exception):
    """The request cannot be read as one of ours. Carries what the answer says; never a piece of the request."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        faults: Sequence[Fault] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status, self.code, self.detail, self.faults, self.headers = status, code, detail, faults, headers
        super().__init__(code)

    def problem(self) -> Problem:
        return problem(self.status, self.code, self.detail, self.faults, headers=self.headers)


def answer(refusal: Problem) -> Response:
    """A problem as Starlette sends it."""
    return Response(refusal.body, refusal.status, refusal.headers)


def problem_of_error(error: JuinieError | Refused) -> Problem:
    return error.problem() if isinstance(error, Refused) else problem_of(error)


def not_found() -> Problem:
    return problem(404, "not_found", "There is nothing at this path.")


def method_not_allowed(headers: dict[str, str]) -> Problem:
    return problem(405, "method_not_allowed", "This path does not take this method.", headers=headers)


def internal() -> Problem:
    return problem(500, "internal", "Something went wrong in Juinie.")
