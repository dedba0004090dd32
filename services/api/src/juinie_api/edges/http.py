"""The API as one FastAPI application: its routes, and how what they raise is answered."""

from typing import Any, override

from fastapi import FastAPI
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from juinie_api.edges import admin, claims, events, runs, stream_tokens, threads
from juinie_api.edges.call import Services
from juinie_api.edges.documents import openapi_document
from juinie_api.edges.observe import Observed
from juinie_api.edges.problems import Refused, answer, method_not_allowed, not_found, problem_of_error
from juinie_api.edges.straight import Straight
from juinie_api.telemetry import Metrics
from juinie_shared.domain.errors import JuinieError, LeaseLost, LimitReached, RunFull
from juinie_shared.runtime.probes import AsgiApp
from juinie_shared.runtime.problems import problem

METHODS = ("DELETE", "GET", "POST")

DESCRIPTION = (
    "Create runs, append run events, read them again. Watching is the stream gateway's: `stream_url`."
)


def build_api(services: Services, metrics: Metrics, tracer_provider: TracerProvider) -> AsgiApp:
    """The application, with a straight way for appends. FastAPI's own telemetry makes one server span a request; metrics and logs are ours."""
    tracer_provider.add_span_processor(_WithoutQuery())
    app = FastAPI(
        title="Juinie API", description=DESCRIPTION, redirect_slashes=False, redoc_url=None,
        middleware=[Middleware(Observed, metrics=metrics)],
        exception_handlers=REFUSALS,
        telemetry={
            "tracer_provider": tracer_provider, "metrics": False, "logs": False, "operation_spans": False,
            "auto_configure": False,
        },
    )  # fmt: skip
    app.state.services = services
    _route(app)
    app.openapi = lambda: openapi_document(app)
    return Straight(app, events.append_events, REFUSALS, metrics, tracer_provider)


def document() -> dict[str, Any]:
    """The OpenAPI document, without anything that serves."""
    app = FastAPI(description=DESCRIPTION)
    _route(app)
    return openapi_document(app)


def _route(app: FastAPI) -> None:
    for noun in (runs, events, claims, threads, stream_tokens, admin):
        app.include_router(noun.router)


async def _refuse(request: Request, error: Any) -> Response:
    if isinstance(error, (LimitReached, RunFull)):
        request.app.state.services.metrics.over_limit.labels(error.code).inc()
    if isinstance(error, LeaseLost):
        request.app.state.services.metrics.lost_leases.inc()
    return answer(problem_of_error(error))


async def _refuse_path(request: Request, error: Any) -> Response:
    if error.status_code == 405:
        return answer(method_not_allowed({"Allow": ", ".join(_methods_of(request))}))
    return answer(not_found())


def _methods_of(request: Request) -> list[str]:
    """The methods that the request's path takes: those of all its routes, of which Starlette names the first's."""
    scope, routes = dict(request.scope), request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]


async def _left(_request: Request, _error: Any) -> Response:
    """The client left before its body was whole, or its answer ready. Nobody reads this."""
    return answer(problem(400, "bad_request", "The client left."))


REFUSALS: dict[Any, Any] = {
    JuinieError: _refuse, Refused: _refuse, HTTPException: _refuse_path, ClientDisconnect: _left,
}  # fmt: skip
"""How what a route raises is answered, by its class."""


class _WithoutQuery(SpanProcessor):
    """Keeps query strings out of spans: someone may have put a key there."""

    @override
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.attributes and "url.query" in span.attributes:
            span.set_attribute("url.query", "")

    @override
    def on_end(self, span: ReadableSpan) -> None: ...
