"""One client of the stream gateway, over a real socket: reads, drops, resumes, and forgives nothing.

It follows EventSource: the last id that was dispatched goes back as `Last-Event-ID`, with the URL as it was. Unlike
EventSource it tells a body that ended with its last chunk from one that was cut.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal, Self
from uuid import UUID

import httpx

from juinie_testkit.frames import Frame, FrameReader, StreamViolation
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.waits import StillMissing

type State = Literal[
    "connecting", "open", "ended", "clean", "cut", "refused", "dropped", "unreachable", "broken"
]
"""`ended`: stream.end, then the last chunk. `clean`: the last chunk without stream.end, which must never be.
`cut`: without the last chunk. `refused`: an answer that is not 200. `broken`: a violation of the protocol."""


class Watcher:
    """A connection to `/v1/runs/{run_id}/stream`. Use as `async with`; inside, it has an answer."""

    def __init__(
        self,
        stream_base_url: str,
        run_id: UUID | str,
        *,
        key: str | None = None,
        token: str | None = None,
        after_seq: int | str | None = None,
        types: str | None = None,
        last_event_id: int | str | None = None,
        headers: dict[str, str] | None = None,
        name: str = "watcher",
    ) -> None:
        self._arguments: dict[str, Any] = {
            "key": key, "token": token, "after_seq": after_seq, "types": types, "headers": headers, "name": name,
        }  # fmt: skip
        self._base_url, self._run_id, self.name = stream_base_url, run_id, name
        self._headers = {"Accept": "text/event-stream", **(headers or {})}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        if last_event_id is not None:
            self._headers["Last-Event-ID"] = str(last_event_id)
        parameters = {"token": token, "after_seq": after_seq, "types": types}
        self._parameters = {name: str(value) for name, value in parameters.items() if value is not None}
        self.last_id: int | str | None = last_event_id
        self.frames: list[Frame] = []
        self.raw = bytearray()
        self.state: State = "connecting"
        self.status: int | None = None
        self.headers = httpx.Headers()
        self.body = b""
        self._fault: Exception | None = None
        self._changed = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None

    @property
    def events(self) -> list[Frame]:
        """The run events, in the order they came."""
        return [frame for frame in self.frames if frame.is_run_event]

    @property
    def seqs(self) -> list[int]:
        """Their seqs."""
        return [frame.id for frame in self.events if frame.id is not None]

    @property
    def controls(self) -> list[Frame]:
        """The `stream.*` frames."""
        return [frame for frame in self.frames if frame.event is not None]

    @property
    def ended(self) -> bool:
        """Saw stream.end, and the body's last chunk after it."""
        return self.state == "ended"

    @property
    def problem(self) -> dict[str, Any]:
        """The problem of a refusal."""
        return httpx.Response(200, content=self.body).json()

    def control(self, name: str) -> Any:
        """The data of the first `stream.*` frame of this name, or None."""
        return next((frame.json for frame in self.controls if frame.event == name), None)

    async def until(self, predicate: Callable[[Self], object], timeout_seconds: float = 30) -> None:
        """Wait until `predicate(watcher)` is true.

        Raises:
            StillMissing: it is not in time, or cannot be any more because the stream is over.
            StreamViolation: the stream broke its rules.
        """
        try:
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(lambda: predicate(self) or self._over)
        except TimeoutError:
            pass
        self._raise_fault()
        if not predicate(self):
            raise StillMissing(f"Not what was waited for within {timeout_seconds:g} s: {self.describe()}.")

    async def until_seq(self, seq: int, timeout_seconds: float = 30) -> None:
        """Wait for the event of this seq."""
        await self.until(lambda watcher: watcher.seqs[-1:] >= [seq], timeout_seconds)

    async def until_caught_up(self, timeout_seconds: float = 30) -> None:
        """Wait for `stream.caught_up`."""
        await self.until(lambda watcher: watcher.control("stream.caught_up") is not None, timeout_seconds)

    async def until_closed(self, timeout_seconds: float = 30) -> None:
        """Wait until the stream is over, in whatever way; gives up in silence after `timeout_seconds`."""
        if self._reading:
            await asyncio.wait({self._reading}, timeout=timeout_seconds)
        self._raise_fault()

    async def drop(self) -> None:
        """Leave without a word."""
        if self._reading and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait({self._reading})
            self.state = "dropped"

    def resume(self, stream_base_url: str | None = None) -> "Watcher":
        """A new watcher after the last id that this one saw, with the same URL, as EventSource does."""
        return Watcher(
            stream_base_url or self._base_url, self._run_id, last_event_id=self.last_id, **self._arguments
        )

    def describe(self) -> str:
        """Where it stands, in one line."""
        last = self.frames[-1] if self.frames else None
        seqs = f"last seq {self.seqs[-1]} of {len(self.seqs)} events" if self.seqs else "no event yet"
        controls = ", ".join(f"{frame.event} {frame.data}" for frame in self.controls[-3:])
        return (
            f"{self.name} is {self.state} (status {self.status}), {seqs}, last id {self.last_id},"
            f" controls: {controls or 'none'}, last frame: {last}"
        )

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        async with self._changed:
            await self._changed.wait_for(lambda: self.state != "connecting")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.drop()
        if kind is None:
            self._raise_fault()

    @property
    def _over(self) -> bool:
        return self.state not in {"connecting", "open"}

    async def _read(self) -> None:
        try:
            async with httpx.AsyncClient(
                verify=NO_TLS, trust_env=False, timeout=httpx.Timeout(10, read=None)
            ) as client:
                url = f"{self._base_url}/v1/runs/{self._run_id}/stream"
                async with client.stream(
                    "GET", url, params=self._parameters, headers=self._headers
                ) as response:
                    await self._take_answer(response)
        except httpx.ConnectError:
            await self._become("unreachable")
        except httpx.TransportError:
            await self._become("cut")
        except (StreamViolation, ValueError, KeyError, TypeError) as fault:
            self._fault = fault
            await self._become("broken")

    async def _take_answer(self, response: httpx.Response) -> None:
        self.status, self.headers = response.status_code, response.headers
        if response.status_code != 200:
            self.body = await response.aread()
            await self._become("refused")
            return
        if response.headers.get("transfer-encoding") != "chunked":
            raise StreamViolation("The body is not chunked: its end would look like a success.")
        await self._become("open")
        reader = FrameReader()
        async for data in response.aiter_raw():
            self.raw += data
            for frame in reader.feed(data):
                self._take(frame)
            await self._become("open")
        reader.finish()
        await self._become("ended" if self.control("stream.end") is not None else "clean")

    def _take(self, frame: Frame) -> None:
        if self.control("stream.end") is not None:
            raise StreamViolation(f"After stream.end came {frame}.")
        if frame.event == "stream.reset":
            self.last_id = None
        elif frame.id is not None:
            if isinstance(self.last_id, int) and frame.id <= self.last_id:
                raise StreamViolation(f"After id {self.last_id} came id {frame.id}.")
            self.last_id = frame.id
        self.frames.append(frame)

    async def _become(self, state: State) -> None:
        self.state = state
        async with self._changed:
            self._changed.notify_all()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault
