"""Where load may go: to this machine, and to another only where `anywhere` was said. All that sends load connects through here."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx

HERE = "127.0.0.1"


class NotLoopback(ValueError):
    """Load is for one's own machine."""


@cache
def refuse_strangers(host: str, *, anywhere: bool = False) -> None:
    """
    Raises:
        NotLoopback: one of the addresses of `host` is not of this machine, and nobody said `anywhere`.
    """
    if anywhere:
        return
    addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise NotLoopback(f"{host} is not this machine. Load is sent to others only with --anywhere.")


async def connect[P: asyncio.BaseProtocol](
    make: Callable[[], P], port: int, host: str = HERE, *, anywhere: bool = False
) -> P:
    """A connection that is open.

    Raises:
        NotLoopback: as `refuse_strangers` does.
    """
    refuse_strangers(host, anywhere=anywhere)
    _, protocol = await asyncio.get_running_loop().create_connection(make, host, port)
    return protocol


def http_client(**options: Any) -> httpx.AsyncClient:
    """One of httpx, for load that need not be cheap to send. Each of its requests raises `NotLoopback` where it would go to another
    machine.
    """

    async def refuse(request: httpx.Request) -> None:
        refuse_strangers(request.url.host)

    return httpx.AsyncClient(trust_env=False, event_hooks={"request": [refuse]}, **options)
