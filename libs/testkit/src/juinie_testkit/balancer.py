"""A TCP balancer in front of replicas: round robin over those that are ready, by looking at `/readyz` at an interval.

What balancers of this kind do, and no more: a connection that a replica refuses goes to the next one, before a byte of
it was sent; a connection that has begun stays with its replica to its end; nothing is ever sent twice. Of this one: who says that it is
not ready, or refuses, is left out at once; who says nothing, after a few probes.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Self

import httpx

from juinie_testkit.plain_http import NO_TLS

LOOK_EVERY_SECONDS = 0.25
LOOK_SECONDS = 1.0
"""How long a probe waits for its answer."""
SILENT_PROBES = 3
"""A replica that left as many in a row unanswered is not ready: one that is slow for a moment is not gone."""


class Health:
    """Whether a replica is ready, by what its probes said."""

    def __init__(self) -> None:
        self._ready, self._silent = False, 0

    def ready_after(self, said: bool | None) -> bool:
        """`said`: None where it said nothing in time."""
        self._silent = self._silent + 1 if said is None else 0
        if said is not None:
            self._ready = said
        elif self._silent >= SILENT_PROBES:
            self._ready = False
        return self._ready


class Balancer:
    """Listens on 127.0.0.1:`port` for the replicas at `urls`. Use as `async with`."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)
        self.port = 0
        self.ready: set[str] = set()
        self.taken: Counter[str] = Counter()
        """Connections by replica."""
        self.refused = 0
        """Connections for which no replica could be had."""
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._looking: list[asyncio.Task[None]] = []
        self._pumping: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._looking = [asyncio.create_task(self._look(url)) for url in self._urls]
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [*self._looking, *self._pumping]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, url: str) -> None:
        async with httpx.AsyncClient(
            verify=NO_TLS, base_url=url, trust_env=False, timeout=LOOK_SECONDS
        ) as client:
            health = Health()
            while True:
                try:
                    said = (await client.get("/readyz")).status_code == 200
                except httpx.TimeoutException:
                    said = None
                except httpx.TransportError:
                    said = False
                (self.ready.add if health.ready_after(said) else self.ready.discard)(url)
                await asyncio.sleep(LOOK_EVERY_SECONDS)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._pumping.add(task)
        task.add_done_callback(self._pumping.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            replica = await self._connect()
            if replica is None:
                self.refused += 1
                return
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, replica[1]))
                    group.create_task(_pump(replica[0], writer))
            finally:
                replica[1].transport.abort()
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """To the next ready replica that takes the connection."""
        self._turn += 1
        turned = self._urls[self._turn % len(self._urls) :] + self._urls[: self._turn % len(self._urls)]
        for url in turned:
            if url in self.ready:
                host, _, port = url.removeprefix("http://").rpartition(":")
                with contextlib.suppress(OSError):
                    connection = await asyncio.open_connection(host, int(port))
                    self.taken[url] += 1
                    return connection
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction. The end of one side is passed on, so that the other hears of it at once."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
