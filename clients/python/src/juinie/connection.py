"""One connection to a run's stream, and how it ended. Only `end` is the end of the run; all else is a drop."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Literal

import httpx

from juinie.api import refused
from juinie.errors import unreadable
from juinie.sse import Frame, FrameReader

NO_CONTENT = 204
_EVENT_STREAM = "text/event-stream"
SILENCE_SECONDS = 25.0
"""A comment comes every 10 s at least: a connection that is silent for longer is dead."""


class Ending(StrEnum):
    """How a connection ended."""

    OPEN = "open"
    END = "end"
    """`stream.end`, then the clean end of the body; or 204: the reader had it all."""
    CUT = "cut"
    """In the middle, by whoever: come back."""
    FALSE_END = "false end"
    """A clean end without `stream.end`: not from Juinie. Come back."""


class Connection:
    """Iterate `batches()` to its end, then read `ending`."""

    def __init__(self, answer: httpx.Response) -> None:
        self.ending = Ending.END if answer.status_code == NO_CONTENT else Ending.OPEN
        self.nothing_more = self.ending is Ending.END
        self._answer = answer
        self._reader = FrameReader()

    @property
    def retry_seconds(self) -> float:
        return self._reader.retry_seconds

    async def batches(self) -> AsyncGenerator[list[Frame]]:
        """Frames, as many at once as came at once. Ends without an error, however the connection ends.

        Raises:
            Unreadable: what came is no frame of Juinie's.
        """
        if self.nothing_more:
            return
        over = False
        try:
            async for piece in self._answer.aiter_raw():
                frames = self._read(piece)
                over = over or any(frame.name == "stream.end" for frame in frames)
                if frames:
                    yield frames
        except httpx.TransportError:
            self.ending = Ending.CUT
            return
        self.ending = Ending.END if over else Ending.FALSE_END

    def _read(self, piece: bytes) -> list[Frame]:
        try:
            return self._reader.feed(piece)
        except ValueError as error:
            raise unreadable(self._answer.status_code, "a frame that cannot be read") from error


@asynccontextmanager
async def connect(
    http: httpx.AsyncClient,
    url: str,
    after_seq: int | Literal["tail"],
    *,
    token: str | None = None,
    types: str | None = None,
    silence_seconds: float = SILENCE_SECONDS,
) -> AsyncGenerator[Connection]:
    """Open a run's stream after a position, or at its tail: only what comes. With a token the client's key stays at home.

    Raises:
        Refused: an answer that will not pass, or no stream at all (`Unreadable`; WHATWG HTML §9.2.3).
        httpx.TransportError: it could not be opened now.
    """
    at_tail = after_seq == "tail"
    asked = (("token", token), ("types", types), ("after_seq", after_seq if at_tail else None))
    params = {name: value for name, value in asked if value}
    headers = {"Accept": _EVENT_STREAM, **({} if at_tail else {"Last-Event-ID": str(after_seq)})}
    timeout, auth = httpx.Timeout(10.0, read=silence_seconds), _without_key if token else None
    async with http.stream("GET", url, params=params, headers=headers, timeout=timeout, auth=auth) as answer:
        if not answer.is_success:
            with suppress(httpx.DecodingError):  # of something in front, which may be gone soon
                await answer.aread()
            raise refused(answer)
        media = answer.headers.get("content-type", "something")
        if answer.status_code != NO_CONTENT and media.partition(";")[0].strip().lower() != _EVENT_STREAM:
            raise unreadable(answer.status_code, f"{media} instead of a stream")
        yield Connection(answer)


def _without_key(request: httpx.Request) -> httpx.Request:
    """A token and a key together are refused: nobody could say which one counts."""
    request.headers.pop("Authorization", None)
    return request
