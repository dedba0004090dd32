"""`/livez`, `/readyz` and `/metrics`, the same for every service, as small ASGI applications.

Liveness asks nothing of Postgres or Kafka: restarting a service does not mend them. Readiness does.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

type AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
type Readiness = Callable[[], Awaitable[list[str]]]
"""What this service still waits for, each in one line without secrets; empty = ready."""


def probe_apps(readiness: Readiness, registry: CollectorRegistry) -> dict[str, AsgiApp]:
    """The three applications by path."""

    async def live(_scope: Any, _receive: Any, send: Any) -> None:
        await _answer(send, 200, b"application/json", b'{"status":"ok"}')

    async def ready(_scope: Any, _receive: Any, send: Any) -> None:
        missing = await readiness()
        body = msgspec.json.encode({"ready": not missing, "waiting_for": missing})
        await _answer(send, 503 if missing else 200, b"application/json", body)

    async def metrics(scope: Any, _receive: Any, send: Any) -> None:
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        encode, content_type = choose_encoder(accept)
        await _answer(send, 200, content_type.encode(), encode(registry))

    return {"/livez": live, "/readyz": ready, "/metrics": metrics}


async def _answer(send: Any, status: int, content_type: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
