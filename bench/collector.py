"""A collector of traces that takes them and lets them go: what is measured has somewhere to send its traces, as in production."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from http_load import content_length

_NO_CONTENT = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def collector() -> AsyncGenerator[str]:
    """Gives its address, for OTLP over HTTP."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(content_length(head))
                writer.write(_NO_CONTENT)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
