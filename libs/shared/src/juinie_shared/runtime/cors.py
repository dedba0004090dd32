"""CORS for both public ports: on every answer, errors and 204 too. An allow-list; never credentials."""

from typing import Any

from starlette.middleware.cors import CORSMiddleware

ALLOW_HEADERS = (
    "Authorization", "X-Api-Key", "Content-Type", "Idempotency-Key", "Juinie-Lease", "Last-Event-ID", "Cache-Control",
    "traceparent",
)  # fmt: skip
EXPOSE_HEADERS = ("Location", "Idempotency-Replayed", "Retry-After")
LOCALHOST = r"https?://(localhost|127\.0\.0\.1)(:\d{1,5})?"


def with_cors(app: Any, origins: tuple[str, ...], dev: bool, methods: tuple[str, ...]) -> Any:
    """`app` with CORS around all of it. In dev, any port of localhost may call as well."""
    return CORSMiddleware(
        app, allow_origins=list(origins), allow_origin_regex=LOCALHOST if dev else None, allow_methods=list(methods),
        allow_headers=list(ALLOW_HEADERS), expose_headers=list(EXPOSE_HEADERS), max_age=600,
    )  # fmt: skip
