"""Accepted connections have what was set on the socket that listens."""

import asyncio
import socket
import sys
from typing import cast

import pytest

from juinie_shared.runtime.http_server import HttpServer
from juinie_shared.runtime.tcp import UNACKNOWLEDGED_SECONDS, UNSENT_BYTES, is_gone, leave_slowness_to_us

LINUX = sys.platform == "linux"


async def app(_scope: object, _receive: object, _send: object) -> None: ...


def test_accepted_connections_are_tended_by_the_kernel() -> None:
    server = HttpServer(app, "127.0.0.1", 0)
    with server.bind() as listener, socket.create_connection(("127.0.0.1", server.bound_port or 0)):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if LINUX:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES


@pytest.mark.skipif(not LINUX, reason="the system has no such option")
def test_the_kernel_keeps_little_for_one_who_does_not_read() -> None:
    server = HttpServer(app, "127.0.0.1", 0)
    with server.bind() as listener, socket.create_connection(("127.0.0.1", server.bound_port or 0)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        accepted, _ = listener.accept()
        with accepted:
            accepted.setblocking(False)
            taken = sum(iter(lambda: sent(accepted), 0))
    assert taken <= 1024 * 1024
    assert UNACKNOWLEDGED_SECONDS < 60


def sent(accepted: socket.socket) -> int:
    try:
        return accepted.send(b"x" * 65536)
    except BlockingIOError:
        return 0


@pytest.mark.skipif(not LINUX, reason="the system has no such option")
async def test_while_slowness_is_ours_the_kernel_gives_nobody_up() -> None:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Accept(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(cast("asyncio.Transport", transport))

    with HttpServer(app, "127.0.0.1", 0).bind() as listener:
        serving = await loop.create_server(Accept, sock=listener)
        async with serving:
            with socket.create_connection(listener.getsockname()):
                transport = await accepted
                peer = transport.get_extra_info("socket")
                for ours, milliseconds in ((True, 0), (False, 45_000)):
                    leave_slowness_to_us(transport, ours)
                    assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds
                assert not is_gone(transport)
            transport.abort()
            assert not is_gone(transport)
            leave_slowness_to_us(transport, True)
