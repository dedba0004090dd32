"""Accepted connections have what was set on the socket that listens."""

import asyncio
import errno
import socket
import sys
from typing import cast

import pytest

from juinie_shared.runtime.http_server import HttpServer
from juinie_shared.runtime.tcp import (
    UNACKNOWLEDGED_SECONDS,
    UNSENT_BYTES,
    cut,
    is_gone,
    taken_bytes,
    waiting_bytes,
)
from juinie_testkit.waits import eventually

SIZE = 4 * 1024 * 1024
LINUX = sys.platform == "linux"


async def app(_scope: object, _receive: object, _send: object) -> None: ...


def test_accepted_connections_are_tended_by_the_kernel() -> None:
    server = HttpServer(app, "127.0.0.1", 0)
    with server.bind() as listener, socket.create_connection(("127.0.0.1", server.bound_port or 0)):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if LINUX:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
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
async def test_what_a_peer_has_taken_and_what_waits_for_it_is_known() -> None:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Accept(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(cast("asyncio.Transport", transport))

    with HttpServer(app, "127.0.0.1", 0).bind() as listener:
        serving = await loop.create_server(Accept, sock=listener)
        async with serving:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(listener.getsockname())
                transport = await accepted
                assert (waiting_bytes(transport), is_gone(transport)) == (0, False)
                before = taken_bytes(transport)
                transport.write(b"x" * SIZE)
                assert taken_bytes(transport) - before + waiting_bytes(transport) == SIZE
                await eventually(
                    lambda: taken_bytes(transport) > before, 20, "the client's kernel has taken some"
                )
                assert SIZE - 64 * 1024 <= waiting_bytes(transport) < SIZE
                assert not is_gone(transport)
                cut(transport)
                await eventually(
                    lambda: reset(client), 20, "the connection is reset, and nothing waits in the kernel"
                )
                assert (waiting_bytes(transport), is_gone(transport)) == (0, False)
                cut(transport)


def reset(client: socket.socket) -> bool:
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
