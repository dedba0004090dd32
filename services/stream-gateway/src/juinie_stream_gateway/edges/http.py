"""The gateway's HTTP surface: the stream route, the probes, and what all answers have in common."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.datastructures import Headers as AnyCase

from juinie_shared.runtime.cors import Cors
from juinie_shared.runtime.probes import AsgiApp
from juinie_shared.runtime.problems import problem
from juinie_stream_gateway.edges.connection import Headers
from juinie_stream_gateway.edges.problems import METHOD_NOT_ALLOWED, NO_SUCH_ROUTE

type Route = Callable[[dict[str, Any], Any, Any, str, Headers], Awaitable[None]]
"""As ASGI, with the run's id as the path has it, and the headers that the answer is to have besides its own."""
type Elsewhere = Callable[[dict[str, Any], Any, str], Awaitable[bool]]
"""Whether a sibling goes on with a request for a stream."""

_STREAM_PATH = re.compile(r"/v1/runs/([^/]+)/stream")
_METHODS = ("GET", "OPTIONS")
_ALLOW = (b"allow", ", ".join(_METHODS).encode())


def http_app(
    stream: Route, probes: Mapping[str, AsgiApp], cors: Cors, elsewhere: Elsewhere | None = None
) -> AsgiApp:
    """The whole ASGI application. What is asked for far more often than all else goes straight to `stream`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        match = _STREAM_PATH.fullmatch(scope["path"]) if scope["method"] == "GET" else None
        if match is None:
            await others(scope, receive, send)
        elif elsewhere is None or not await elsewhere(scope, receive, match[1]):
            await stream(scope, receive, send, match[1], cors.marks(_origin_of(scope)))

    async def route(scope: Any, receive: Any, send: Any) -> None:
        path, method = scope["path"], scope["method"]
        if path not in probes and not _STREAM_PATH.fullmatch(path):
            await _answer(send, *_problem(NO_SUCH_ROUTE, scope))
        elif method not in _METHODS:
            status, headers, body = _problem(METHOD_NOT_ALLOWED, scope)
            await _answer(send, status, [*headers, _ALLOW], body)
        elif method == "OPTIONS":
            await _answer(send, 204, [_ALLOW], b"")
        else:
            await probes[path](scope, receive, send)

    others = _with_constant_headers(cors.around(route))
    return app


def _origin_of(scope: dict[str, Any]) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), None)


def _with_constant_headers(app: AsgiApp) -> AsgiApp:
    """`Vary` in any case: a cache must not give one origin's answer to another."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def add(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                if all(name.lower() != b"vary" for name, _ in headers):
                    message = {**message, "headers": [*headers, (b"vary", b"Origin")]}
            await send(message)

        await app(scope, receive, add)

    return wrapped


def _problem(
    refused: tuple[int, str, str], scope: dict[str, Any]
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    answer = problem(*refused, traceparent=AnyCase(scope=scope).get("traceparent"))
    return answer.status, answer.raw_headers(), answer.body


async def _answer(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
