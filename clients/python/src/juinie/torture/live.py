"""Do the gateways read Kafka? Without it they show every event, too, only later: nothing but their own figures tells."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import httpx

from juinie.client import Client
from juinie.connection import connect
from juinie.errors import JuinieError

_GATEWAY = "# HELP juinie_stream_records_total"
_READ = re.compile(
    r'^juinie_stream_records_total\{(?:process="\d+",)?verdict="next"\} ([0-9.e+]+)$', re.MULTILINE
)
"""Of a gateway of several processes, one line for each."""
_LOOK_EVERY_SECONDS = 0.2
_TRY_SECONDS = 5.0


class Live:
    """Of every gateway. `append` writes an event to `run_id`. Metrics that are out of reach tell nothing."""

    def __init__(self, client: Client, run_id: str, append: Callable[[], Awaitable[object]]) -> None:
        self._client, self._run_id, self._append = client, run_id, append

    async def may_look(self) -> bool:
        """Every address of the gateways shows metrics of a gateway."""
        return all([await self._read(url) is not None for url in self._client.stream_urls])

    async def until_live(self, timeout_seconds: float) -> float | None:
        """Seconds from now until each gateway has shown an event that Kafka brought. None: not within the time."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_seconds), asyncio.TaskGroup() as group:
                for url in self._client.stream_urls:
                    group.create_task(self._until_read(url))
        except TimeoutError:
            return None
        return time.monotonic() - began

    async def _until_read(self, url: str) -> None:
        """With a stream open, and events for it. A count that fell is that of a new process."""
        watching = asyncio.create_task(self._watch(f"{url}/v1/runs/{self._run_id}/stream"))
        try:
            before = await self._read(url)
            while True:
                await self._append()
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
                now = await self._read(url)
                if before is not None and now is not None and now > before:
                    return
                before = now
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self, stream: str) -> None:
        while True:
            try:
                async with connect(self._client.http, stream, "tail") as connection:
                    async for _ in connection.batches():
                        pass
            except (httpx.TransportError, JuinieError):
                pass
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _read(self, url: str) -> float | None:
        try:
            answer = await self._client.http.get(f"{url}/metrics", timeout=_TRY_SECONDS)
        except httpx.TransportError:
            return None
        if not answer.is_success or _GATEWAY not in answer.text:
            return None
        return sum(map(float, _READ.findall(answer.text)))
