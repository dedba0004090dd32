"""What lies between a client and the gateway: bytes are passed on, until a connection is cut within a frame."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class CuttingProxy:
    """Passes bytes on, and cuts a connection exactly behind bytes that a test names, whatever frame that is in."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self._pattern: bytes | None = None
        self._reset = False
        self._was_cut: asyncio.Future[None]
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[str] = []
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator["CuttingProxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield self
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_behind(self, pattern: bytes, *, reset: bool = False) -> Awaitable[None]:
        """Cut the connection on which `pattern` comes next, right behind it; the answer is done once that is done.

        `reset`: with a TCP reset, which may take bytes along that were sent before.
        """
        self._pattern, self._reset = pattern, reset
        self._was_cut = asyncio.get_running_loop().create_future()
        return self._was_cut

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:  # the gateway is away
            writer.transport.abort()
            return
        up = asyncio.create_task(self._up(reader, server_writer))
        down = asyncio.create_task(self._down(server_reader, writer))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            writer.close()
            server_writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.requests.append(data.decode("latin-1").lower())
            writer.write(data)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = b""
        while data := await reader.read(65536):
            seen += data
            if self._pattern and (at := seen.find(self._pattern)) >= 0:
                end = len(data) - (len(seen) - at - len(self._pattern))
                await self._cut(writer, data[:end])
                return
            seen = seen[-200:]
            writer.write(data)
            await writer.drain()

    async def _cut(self, writer: asyncio.StreamWriter, last: bytes) -> None:
        writer.write(last)
        await writer.drain()
        if self._reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self._pattern = None
        self._was_cut.set_result(None)
