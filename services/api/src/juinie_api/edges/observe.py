"""Around every request: one log line, one measurement, the headers that all answers carry, and an end for faults of
ours that shows nothing of them.
"""

import time
import traceback
from collections.abc import Callable
from typing import Any

from juinie_api import telemetry
from juinie_api.edges.problems import internal
from juinie_shared.runtime.logs import get_logger

_ALWAYS = {
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
}


class Observed:
    """ASGI middleware. Pure, so that a client that leaves never cancels a commit."""

    def __init__(self, app: Any, metrics: telemetry.Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._log = get_logger("api").bind()
        self._observe: dict[tuple[str, str, int], Callable[[float], None]] = {}
        """By labels, each looked up once."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_headers(message.get("headers", ()))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001 - the last place where it can become an answer
            self._log.error(telemetry.REQUEST_FAILED, error=type(error).__name__, at=_where(error))
            if not status:
                refusal = internal()
                await send_with_headers(
                    {"type": "http.response.start", "status": 500, "headers": refusal.raw_headers()}
                )
                await send({"type": "http.response.body", "body": refusal.body})
        self._report(scope, status, time.perf_counter() - started)

    def _report(self, scope: Any, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if route != "none" else "other"
        labels = (method, route, status)
        if labels not in self._observe:
            self._observe[labels] = self._metrics.request_seconds.labels(method, route, str(status)).observe
        self._observe[labels](seconds)
        tenant_id = scope.get("state", {}).get("tenant_id")
        self._log.info(
            telemetry.REQUEST,
            method=method, route=route, status=status, duration_seconds=round(seconds, 6), tenant_id=tenant_id,
        )  # fmt: skip


def _with_headers(headers: Any) -> list[tuple[bytes, bytes]]:
    given = list(headers)
    names = {name.lower() for name, _ in given}
    return given + [(name, value) for name, value in _ALWAYS.items() if name not in names]


def _where(error: BaseException) -> list[str]:
    """The places an error came through. Its text stays out: it may hold a piece of a request."""
    return [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-6:]]
