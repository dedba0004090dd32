"""Is the deployment well again? An append through the API, its delivery through every gateway, and an outbox that empties."""

import asyncio
import time
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from juinie.client import Client
from juinie.connection import Connection, connect
from juinie.errors import JuinieError
from juinie.torture.live import Live
from juinie.torture.outbox import Outbox
from juinie.torture.waited import NOT_LOOKED_AT, Waited

_TRY_EVERY_SECONDS = 0.1
_TRY_SECONDS = 5.0


class Probe:
    """One run of its own, which is appended to and watched afresh each time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.run_id = str(uuid.uuid4())
        self._outbox = Outbox(client)
        self._live = Live(client, self.run_id, lambda: self._append(client.api.urls[:1]))
        self.sees_outbox = self._sees_gateways = False

    @property
    def left_out(self) -> list[str]:
        """What it cannot look at, a line each."""
        told = {
            "left out: whether all is published, and dead letters: the key cannot read the outbox": self.sees_outbox,
            "left out: whether gateways read Kafka: their /metrics are not in reach": self._sees_gateways,
        }
        return [line for line, sees in told.items() if not sees]

    async def begin(self) -> None:
        """Create the run."""
        self.sees_outbox = await self._outbox.may_look()
        self._sees_gateways = await self._live.may_look()
        await self._client.create_run("torture-probe", run_id=self.run_id, idempotency_key=self.run_id)

    async def until_well(self, timeout_seconds: float) -> float | None:
        """Seconds from now until an append that began after now was answered and came out of every gateway.

        None: not within the time.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_seconds):
                seq = await self._append(self._client.api.urls)
                async with asyncio.TaskGroup() as group:
                    for url in self._client.stream_urls:
                        group.create_task(self._deliver(url, seq))
        except TimeoutError:
            return None
        return time.monotonic() - began

    async def until_published(self, timeout_seconds: float) -> Waited:
        """Seconds from now until all that was written before now is on Kafka.

        None: not within the time. `NOT_LOOKED_AT`: the key may not see that.
        """
        return await self._outbox.until_published(timeout_seconds) if self.sees_outbox else NOT_LOOKED_AT

    async def until_live(self, timeout_seconds: float) -> Waited:
        """Seconds from now until each gateway has shown an event that Kafka brought.

        None: not within the time. `NOT_LOOKED_AT`: their metrics are not in reach.
        """
        return await self._live.until_live(timeout_seconds) if self._sees_gateways else NOT_LOOKED_AT

    async def until_served(self, timeout_seconds: float) -> float | None:
        """Seconds from now until an append that began after now was answered by any address, and came out of any gateway.

        What a client feels that goes elsewhere when it has to. None: not within the time.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_seconds):
                seq = await _first(self._append_to(url) for url in self._client.api.urls)
                await _first(self._deliver(url, seq) for url in self._client.stream_urls)
        except TimeoutError:
            return None
        return time.monotonic() - began

    async def _append(self, urls: Sequence[str]) -> int:
        """Through every address of the API; the seq of the last."""
        seqs = [await self._append_to(url) for url in urls]
        return max(seqs)

    async def _append_to(self, url: str) -> int:
        key = str(uuid.uuid4())
        body = {"events": [{"type": "probe"}]}
        while True:
            try:
                answer = await self._client.http.post(
                    f"{url}/v1/runs/{self.run_id}/events", json=body, headers={"Idempotency-Key": key},
                    timeout=_TRY_SECONDS,
                )  # fmt: skip
                if answer.is_success:
                    return answer.json()["last_seq"]
            except httpx.TransportError:
                pass
            await asyncio.sleep(_TRY_EVERY_SECONDS)

    async def _deliver(self, url: str, seq: int) -> None:
        stream = f"{url}/v1/runs/{self.run_id}/stream"
        while not await self._delivered(stream, seq):
            await asyncio.sleep(_TRY_EVERY_SECONDS)

    async def _delivered(self, stream: str, seq: int) -> bool:
        try:
            async with (
                asyncio.timeout(_TRY_SECONDS),
                connect(self._client.http, stream, seq - 1) as connection,
            ):
                return await _brings(connection, seq)
        except (httpx.TransportError, JuinieError, TimeoutError):
            return False


async def _first[T](tries: Iterable[Coroutine[Any, Any, T]]) -> T:
    """What the quickest gives; the others are left."""
    tasks = [asyncio.ensure_future(one) for one in tries]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _brings(connection: Connection, seq: int) -> bool:
    async with aclosing(connection.batches()) as batches:
        async for frames in batches:
            if any(frame.id == seq for frame in frames):
                return True
    return False
