"""Requests to Kafka that are made in a way of our own, in place of aiokafka's. All else of a client stays as it is."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any


def make_requests[Request](client: Any, kind: type[Request], ours: Callable[[Request], Request]) -> None:
    """From now on what this client of aiokafka sends of `kind` is what `ours` makes of it."""
    client.send = partial(_send, client.send, kind, ours)


async def _send[Request](
    send: Callable[..., Awaitable[object]],
    kind: type[Request],
    ours: Callable[[Request], Request],
    node_id: int,
    request: object,
    **options: object,
) -> object:
    return await send(node_id, ours(request) if isinstance(request, kind) else request, **options)
