"""A stream as bytes: chunk framing and all, by a client that may read nothing, or leave in any way."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

LAST_CHUNK = b"0\r\n\r\n"
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


def stream_request(run_id: UUID | str, key: str, after_seq: int | str = 0) -> bytes:
    """The request for a run's stream, byte for byte."""
    return (
        f"GET /v1/runs/{run_id}/stream?after_seq={after_seq} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
    ).encode()


def unchunked(chunks: bytes) -> bytes:
    """The body; every chunk has to be well made, and the last one there."""
    body = b""
    while True:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        if not length:
            assert rest == b"\r\n"
            return body
        body, chunks = body + rest[:length], rest[length + 2 :]


class RawStream:
    """A socket, and what came from it. It reads only when told to."""

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._loop = asyncio.get_running_loop()
        self.received = b""

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def read(self, at_most: int = 65536) -> bytes:
        """What is there next; empty at the end."""
        data = await self._loop.sock_recv(self._socket, at_most)
        self.received += data
        return data

    def look(self) -> None:
        """Read nothing, and see whether the connection is still there.

        Raises:
            ConnectionResetError: the other end has cut it.
        """
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "the connection is over")

    async def read_all(self) -> bytes:
        """Everything until the connection is over, however it ends."""
        try:
            while await self.read():
                pass
        except ConnectionResetError:
            pass
        return self.received

    async def read_until(self, wanted: bytes) -> None:
        """Read until these bytes have come."""
        while wanted not in self.received:
            assert await self.read(), self.received[-2000:]

    def leave(self, reset: bool = False) -> None:
        """Close: with a FIN, or with a RST."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self._socket.close()


async def connect_raw(port: int, receive_buffer: int | None = None) -> RawStream:
    """A connection to 127.0.0.1 that has sent nothing yet."""
    client = socket.socket()
    try:
        client.setblocking(False)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    except BaseException:
        client.close()
        raise
    return RawStream(client)


@asynccontextmanager
async def raw_stream(
    port: int, run_id: UUID | str, key: str, receive_buffer: int | None = None
) -> AsyncGenerator[RawStream]:
    """A stream that was asked for; left with a RST."""
    stream = await connect_raw(port, receive_buffer)
    try:
        await stream.send(stream_request(run_id, key))
        yield stream
    finally:
        stream.leave(reset=True)
