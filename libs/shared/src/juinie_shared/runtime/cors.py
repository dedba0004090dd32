"""CORS for both public ports: on every answer, errors and 204 too. An allow-list; never credentials."""

from typing import Any, override

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from juinie_shared.runtime.problems import problem

ALLOW_HEADERS = (
    "Authorization", "X-Api-Key", "Content-Type", "Idempotency-Key", "Juinie-Lease", "Last-Event-ID", "Cache-Control",
    "traceparent",
)  # fmt: skip
EXPOSE_HEADERS = ("Location", "Idempotency-Replayed", "Retry-After")
LOCALHOST = r"https?://(localhost|127\.0\.0\.1)(:\d{1,5})?"


class Cors:
    """Who may call from a browser. In dev, any port of localhost may as well."""

    def __init__(self, origins: tuple[str, ...], dev: bool, methods: tuple[str, ...]) -> None:
        self._arguments: dict[str, Any] = {
            "allow_origins": list(origins), "allow_origin_regex": LOCALHOST if dev else None, "allow_methods": list(methods),
            "allow_headers": list(ALLOW_HEADERS), "expose_headers": list(EXPOSE_HEADERS), "max_age": 600,
        }  # fmt: skip
        self._middleware = self.around(None)

    def around(self, app: Any) -> "_Middleware":
        """`app` with CORS around all of it."""
        return _Middleware(app, **self._arguments)

    def marks(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """What the middleware adds to an answer without a `Vary` of its own, for who answers past it. `origin`: of the request."""
        if origin is None:
            return [(b"vary", b"Origin")]
        middleware = self._middleware
        added = dict(middleware.simple_headers)
        if not middleware.allow_all_origins and middleware.is_allowed_origin(origin):
            added["Access-Control-Allow-Origin"] = origin
        added["Vary"] = "Origin"
        return [(name.lower().encode(), value.encode("latin-1")) for name, value in added.items()]

    def headers_for(self, origin: str) -> dict[str, str]:
        """What an answer carries that no application has seen, to a request with this `Origin`."""
        if not self._middleware.is_allowed_origin(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": ", ".join(EXPOSE_HEADERS),
        }


class _Middleware(CORSMiddleware):
    @override
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """To who names no origin, an answer only says that others may get another one."""
        if scope["type"] != "http" or b"origin" in dict(scope["headers"]):
            await super().__call__(scope, receive, send)
            return

        async def send_varying(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if b"vary" in dict(headers):
                    await self.send(message, send, Headers(scope=scope))
                    return
                message["headers"] = [*headers, (b"vary", b"Origin")]
            await send(message)

        await self.app(scope, receive, send_varying)

    @override
    def preflight_response(self, request_headers: Headers) -> Response:
        """A refusal is a problem, as everywhere."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        refusal = problem(
            400, "cors_refused", "Not from this origin, with this method or with these headers.",
            traceparent=request_headers.get("traceparent"),
        )  # fmt: skip
        for name, value in refusal.headers.items():
            answer.headers[name] = value
        return Response(refusal.body, refusal.status, dict(answer.headers))
