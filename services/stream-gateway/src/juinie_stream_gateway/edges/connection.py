"""One request's side of ASGI, and the transport beneath it where the server lends it (`runtime/http_server.py`)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from juinie_shared.runtime.tcp import is_gone, leave_slowness_to_us

LOOKS = 12
"""How often it is looked at whether a client reads, in the time that it may read nothing."""

type Send = Callable[[dict[str, Any]], Awaitable[None]]
type Receive = Callable[[], Awaitable[dict[str, Any]]]
type Headers = list[tuple[bytes, bytes]]


class StreamCut(Exception):
    """Ends a stream's connection without the last chunk, on servers that do not lend us their transport."""


class HttpConnection:
    """Sends, waits for who reads slowly, and cuts."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        lent = scope.get("extensions", {}).get("juinie.transport")
        self._transport: asyncio.Transport | None = lent and lent["transport"]

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, headers: Headers) -> None:
        """The head of a stream."""
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send_body(self, data: bytes, slow_seconds: float) -> None:
        """Send a part of a stream, once the client has read enough of what came before.

        Raises:
            TimeoutError: it read nothing for `slow_seconds`; `data` was not sent.
        """
        await self._patiently({"type": "http.response.body", "body": data, "more_body": True}, slow_seconds)

    async def send_end(self, slow_seconds: float) -> None:
        """The last chunk. Raises as `send_body`."""
        await self._patiently({"type": "http.response.body", "body": b""}, slow_seconds)

    def unsent_bytes(self) -> int:
        """What the transport could not yet hand to the kernel."""
        if self._transport is None or self._transport.is_closing():
            return 0
        return self._transport.get_write_buffer_size()

    async def until_disconnected(self) -> None:
        """Return when the client has gone, or its connection was cut."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def cut(self) -> None:
        """Close without the last chunk, once what was sent is written out; `abort` comes to who does not read."""
        if self._transport is None:
            raise StreamCut
        if not self._transport.is_closing():
            self._transport.close()
        await self.until_disconnected()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _patiently(self, message: dict[str, Any], slow_seconds: float) -> None:
        """Send, while the client reads at all. A send that is broken off while it waits has sent nothing (uvicorn)."""
        try:
            async with asyncio.timeout(slow_seconds / LOOKS):
                return await self._send(message)
        except TimeoutError:
            self._be_patient(True)
        try:
            await self._while_it_reads(message, slow_seconds)
        finally:
            self._be_patient(False)

    async def _while_it_reads(self, message: dict[str, Any], slow_seconds: float) -> None:
        """It may have read last just after a look that found it reading: the time runs from that look."""
        every = slow_seconds / LOOKS
        unsent, looks_left = self.unsent_bytes(), LOOKS - 1
        while looks_left:
            try:
                async with asyncio.timeout(every):
                    return await self._send(message)
            except TimeoutError:
                self._abort_if_gone()
                before, unsent = unsent, self.unsent_bytes()
                looks_left = LOOKS - 1 if unsent < before else looks_left - 1
        raise TimeoutError

    def _be_patient(self, patient: bool) -> None:
        if self._transport is not None:
            leave_slowness_to_us(self._transport, patient)

    def _abort_if_gone(self) -> None:
        if self._transport is not None and is_gone(self._transport):
            self._transport.abort()
