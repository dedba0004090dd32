"""Every operation that the services serve, and answers made comparable: what an access table is filled from."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

_METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
_TRACE_ID = re.compile(rb'"trace_id":"[0-9a-f]{32}"')
_PLACE = re.compile(r"\{([^}]+)\}")
_COUNTED = ("ratelimit", "x-ratelimit")
"""Headers that say what is left: they differ from answer to answer."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route. `path` has places for ids: `/v1/runs/{run_id}`."""

    method: str
    path: str
    on_gateway: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def places(self) -> list[str]:
        """The names of the path's places."""
        return _PLACE.findall(self.path)

    def filled(self, ids: Mapping[str, object]) -> str:
        """The path with its places filled."""
        return _PLACE.sub(lambda place: str(ids[place[1]]), self.path)


def operations_of(openapi: Mapping[str, Any]) -> list[Operation]:
    """All operations of an OpenAPI document."""
    return [
        Operation(method.upper(), path)
        for path, methods in openapi["paths"].items()
        for method in methods
        if method.upper() in _METHODS
    ]


def undocumented(operations: Iterable[Operation]) -> list[Operation]:
    """The methods that the operations' paths do not have. OPTIONS is CORS's."""
    known = set(operations)
    paths = {(operation.path, operation.on_gateway) for operation in known}
    every = {Operation(method, *path) for path in paths for method in _METHODS if method != "OPTIONS"}
    return sorted(every - known, key=str)


def bare(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body without what differs between any two answers: the trace id, and counts of what is left."""
    headers = {name: value for name, value in answer.headers.items() if not name.lower().startswith(_COUNTED)}
    return answer.status_code, headers, _TRACE_ID.sub(b'"trace_id":0', answer.content)
