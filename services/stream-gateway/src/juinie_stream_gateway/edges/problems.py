"""Refusals of the stream route as problem details: what is shared lives in `runtime/problems.py`."""

from juinie_shared.domain.errors import Permanent
from juinie_shared.runtime.problems import Problem, problem, problem_of
from juinie_stream_gateway.edges.request import BadRequest, NotAcceptable

METHOD_NOT_ALLOWED = (405, "method_not_allowed", "Only GET and OPTIONS are answered here.")
NO_SUCH_ROUTE = (404, "not_found", "There is nothing at this path.")


def refusal(error: Permanent) -> Problem:
    """The answer to a request that will never succeed as it is."""
    if isinstance(error, BadRequest):
        return problem(400, error.code, error.message, faults=error.faults)
    if isinstance(error, NotAcceptable):
        return problem(406, error.code, error.message)
    return problem_of(error)
