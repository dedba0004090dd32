"""One connection to a run's stream, and how it ended. Only `end` is the end of the run; all else is a drop."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import StrEnum

import httpx

from juinie.api import refused
from juinie.sse import Frame, FrameReader

NO_CONTENT = 204
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
        """Frames, as many at once as came at once. Ends without an error, however the connection ends."""
        if self.nothing_more:
            return
        over = False
        try:
            async for piece in self._answer.aiter_raw():
                frames = self._reader.feed(piece)
                over = over or any(frame.name == "stream.end" for frame in frames)
                if frames:
                    yield frames
        except httpx.TransportError:
            self.ending = Ending.CUT
            return
        self.ending = Ending.END if over else Ending.FALSE_END


@asynccontextmanager
async def connect(
    http: httpx.AsyncClient,
    url: str,
    after_seq: int,
    *,
    token: str | None = None,
    types: str | None = None,
    silence_seconds: float = SILENCE_SECONDS,
) -> AsyncGenerator[Connection]:
    """Open a run's stream after a position.

    Raises:
        Refused: an answer that will not pass.
        httpx.TransportError: it could not be opened now.
    """
    params = {name: value for name, value in (("token", token), ("types", types)) if value}
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after_seq)}
    timeout = httpx.Timeout(10.0, read=silence_seconds)
    async with http.stream("GET", url, params=params, headers=headers, timeout=timeout) as answer:
        if not answer.is_success:
            await answer.aread()
            raise refused(answer)
        yield Connection(answer)
