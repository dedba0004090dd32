"""Writes an agent's events into a run: in small batches, and never twice.

Tokens come one at a time, and an append for each would be wasteful. So while one append is on its way, what arrives
gathers and makes the next one. Each append carries an Idempotency-Key: when no answer comes back, the same append is
sent again, and Juinie answers as it did the first time.
"""

import asyncio
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx

BATCH_EVENTS = 200
"""Far below the 1,000 events that a request may have."""
WINDOW_SECONDS = 0.1
"""How long a token waits for company."""
ATTEMPTS = 60


class RunWriter:
    """One run, from its creation to its end. `api` is a client of the API with its key."""

    def __init__(self, api: httpx.AsyncClient, agent: str, question: Any) -> None:
        self._api, self._create = api, {"run_id": str(uuid4()), "agent": agent, "input": question}
        self._pending: list[dict[str, Any]] = []
        self._arrived = asyncio.Event()
        self._sending = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None
        self.run_id: str = self._create["run_id"]
        self.stream_url = ""
        self.last_seq = 0
        self.emitted = self.appends = 0

    async def __aenter__(self) -> Self:
        await self._api.get("/livez")  # an API that is not there is told at once, not after all attempts
        run = await self._post("/v1/runs", self._create)
        self.stream_url, self.last_seq = run["stream_url"], run["last_seq"]
        self._flusher = asyncio.create_task(self._flush_as_they_come())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._flusher:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)

    def emit(self, event_type: str, data: dict[str, Any]) -> None:
        """Take one event; it is sent within `WINDOW_SECONDS`."""
        self._pending.append({"type": event_type, "data": data})
        self.emitted += 1
        self._arrived.set()

    async def finish(self, output: Any) -> None:
        """Send what is left and end the run: the last of it in one transaction with the end."""
        async with self._sending:
            if self._flusher and self._flusher.done():
                self._flusher.result()  # what it could not send must not be missing from a run that ended well
            while len(self._pending) > BATCH_EVENTS:
                await self._append(self._take())
            body = {"status": "success", "output": output, "events": self._take()}
            run = await self._post(f"/v1/runs/{self.run_id}/finish", body)
            self.last_seq = run["last_seq"]

    async def _flush_as_they_come(self) -> None:
        while True:
            await self._arrived.wait()
            await asyncio.sleep(WINDOW_SECONDS)
            self._arrived.clear()
            async with self._sending:
                while events := self._take():
                    await self._append(events)

    async def _append(self, events: list[dict[str, Any]]) -> None:
        answer = await self._post(f"/v1/runs/{self.run_id}/events", {"events": events})
        self.last_seq = answer["last_seq"]
        self.appends += 1

    def _take(self) -> list[dict[str, Any]]:
        taken, self._pending = self._pending[:BATCH_EVENTS], self._pending[BATCH_EVENTS:]
        return taken

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send until there is an answer: the same body under the same key, so that a repeat changes nothing."""
        key = {"Idempotency-Key": str(uuid4())}
        for _ in range(ATTEMPTS):
            try:
                answer = await self._api.post(path, json=body, headers=key)
            except httpx.TransportError:
                await asyncio.sleep(0.5)
                continue
            if answer.status_code in {429, 503}:
                await asyncio.sleep(float(answer.headers.get("Retry-After", 0.5)))
                continue
            return answer.raise_for_status().json()
        raise SystemExit("The API does not answer. Is the stack running? Try: make status")
