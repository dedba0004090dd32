"""Straight to the route that is asked far more often than all others: appends.

FastAPI documents it, and serves it where this stands not in front; but finding the route, solving what it depends on and
telling of the request takes it several times as long as all that the append itself does in this process. Same function, same
refusals, same log line and metrics; a server span with the same name and attributes as FastAPI's own.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from starlette.requests import Request
from starlette.responses import Response

from juinie_api.edges.call import Call, authenticated
from juinie_api.edges.observe import Observed
from juinie_api.telemetry import Metrics
from juinie_shared.runtime.tracing import parent_of
from juinie_shared.runtime.unrecorded import QuickTracer

_PATH = re.compile(r"/v1/runs/([^/]+)/events")

type Handler = Callable[[Request, Any], Awaitable[Response]]


class _Route:
    path = "/v1/runs/{run_id}/events"


_NAME = f"POST {_Route.path}"


class Straight:
    """ASGI. `POST` of events goes to `append`, everything else to `app`. `refusals`: how what it raises is answered, by class."""

    def __init__(
        self,
        app: Any,
        append: Callable[[Call], Awaitable[Response]],
        refusals: dict[type[Exception], Handler],
        metrics: Metrics,
        provider: TracerProvider,
    ) -> None:
        self._app, self._append, self._refusals = app, append, refusals
        self._tracer = QuickTracer(provider, "juinie.api")
        self._observed = Observed(self._answered, metrics)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found = scope["type"] == "http" and scope["method"] == "POST" and _PATH.fullmatch(scope["path"])
        if not found:
            await self._app(scope, receive, send)
            return
        scope.update(app=self._app, route=_Route, path_params={"run_id": found[1]})
        span = scope["state"]["span"] = self._tracer.start_span(
            _NAME, parent_of(scope["headers"]), SpanKind.SERVER, attributes=_attributes(scope)
        )
        token = attach(set_span_in_context(span))
        try:
            await self._observed(scope, receive, send)
        finally:
            detach(token)
            span.end()

    async def _answered(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        try:
            response = await self._append(await authenticated(request))
        except Exception as error:
            refuse = next((self._refusals[cls] for cls in type(error).__mro__ if cls in self._refusals), None)
            if refuse is None:
                _tell(scope["state"]["span"], 500)
                raise
            response = await refuse(request, error)
        _tell(scope["state"]["span"], response.status_code)
        await response(scope, receive, send)


def _tell(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def _attributes(scope: Any) -> dict[str, Any]:
    """As the semantic conventions for HTTP servers name them."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return {
        "url.scheme": scope["scheme"],
        "http.request.method": "POST",
        "network.protocol.version": scope["http_version"],
        "url.path": scope["path"],
        "http.route": _Route.path,
        **_server(host),
    }


@lru_cache(maxsize=100)
def _server(host: bytes) -> Mapping[str, Any]:
    """Nothing of a host that cannot be one: whoever sends that is refused as anybody else."""
    try:
        server = urlsplit(f"//{host.decode('latin-1')}")
        name, port = server.hostname, server.port or 80
    except ValueError:
        return {}
    return {"server.address": name, "server.port": port} if name else {}
