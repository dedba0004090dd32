"""Watches a run over any number of connections, and comes back where it left off.

What it does is what `EventSource` does in a browser: remember the id of the last event, wait for as long as the server
said, and send that id as Last-Event-ID. A stream is over only after `stream.end`, or where a gateway answers 204: there is
nothing more. Every other end is a drop.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from httpx_sse import ServerSentEvent, aconnect_sse

PASSING = {429, 502, 503, 504}
"""Answers of a gateway, or of what stands in front of it, that will be others soon."""


class Audience(Protocol):
    """Who is told what the watcher sees."""

    def connected(self, after_seq: int) -> None: ...
    def received(self, event: dict[str, Any], replayed: bool) -> None: ...
    def caught_up(self, replayed: int) -> None: ...
    def dropped(self, after_seq: int) -> None: ...
    def ended(self, status: str) -> None: ...


@dataclass
class RunWatcher:
    """A watcher of one run. `seqs` is everything it was sent, in the order in which it came."""

    client: httpx.AsyncClient
    url: str
    audience: Audience
    seqs: list[int] = field(default_factory=list[int])
    ends: int = 0
    connections: int = 0
    _last_event_id: str = ""
    _retry_seconds: float = 1.0
    _replayed: int | None = None
    _finished_as: str = "finished"

    async def follow(self, until: Callable[[], bool] = lambda: False) -> None:
        """Watch until the run ends, or until `until()` holds: then drop the connection in the middle."""
        while not self.ends:
            try:
                await self._one_connection(until)
            except httpx.TransportError:
                self.audience.dropped(self.after_seq)
            if until():
                return
            if not self.ends:
                await asyncio.sleep(self._retry_seconds)

    @property
    def after_seq(self) -> int:
        """Where it stands."""
        return int(self._last_event_id or 0)

    async def _one_connection(self, until: Callable[[], bool]) -> None:
        headers = {"Last-Event-ID": self._last_event_id} if self._last_event_id else {}
        async with aconnect_sse(self.client, "GET", self.url, headers=headers) as source:
            if source.response.status_code == 204:  # the run has ended, and the last event was the end's
                self._end(self._finished_as)
                return
            if source.response.status_code in PASSING:
                self.audience.dropped(self.after_seq)
                return
            source.response.raise_for_status()
            self.connections += 1
            self._replayed = 0
            self.audience.connected(self.after_seq)
            async for frame in source.aiter_sse():
                self._take(frame)
                if self.ends:
                    return
                if until():
                    break
        self.audience.dropped(self.after_seq)

    def _take(self, frame: ServerSentEvent) -> None:
        if frame.retry is not None:
            self._retry_seconds = frame.retry / 1000
        if frame.event == "stream.caught_up":
            self.audience.caught_up(self._replayed or 0)
            self._replayed = None
        elif frame.event == "stream.end":
            self._end(json.loads(frame.data)["status"])
        elif frame.event == "message" and frame.data:
            self._take_event(json.loads(frame.data))
        self._last_event_id = frame.id or self._last_event_id

    def _end(self, status: str) -> None:
        self.ends += 1
        self.audience.ended(status)

    def _take_event(self, event: dict[str, Any]) -> None:
        self.seqs.append(event["seq"])
        if event["type"] == "run.finished":
            self._finished_as = event["data"]["status"]
        if self._replayed is not None:
            self._replayed += 1
        self.audience.received(event, replayed=self._replayed is not None)
