"""A run's stream over as many connections as it takes: each event once, in order, to the end of the run."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import httpx

from juinie.api import PASSING
from juinie.connection import Ending, connect
from juinie.errors import Refused, unreadable
from juinie.events import RunEvent
from juinie.sse import Frame

_UNREACHABLE_SECONDS = 1.0


@dataclass
class RunStream:
    """`position` is the seq of the last event that was given; who keeps it can go on from there another day.

    Where no gateway answers, or one says that it cannot now, it is asked again until the task is cancelled.
    """

    http: httpx.AsyncClient
    urls: Sequence[str]
    position: int = 0
    types: str | None = None

    async def events(self) -> AsyncGenerator[RunEvent]:
        """Every event after `position`.

        Raises:
            Refused: the stream is not for us (any more): the run was deleted, the key revoked; or it is no stream of Juinie's.
        """
        for url in itertools.cycle(self.urls):
            ending, wait = Ending.CUT, _UNREACHABLE_SECONDS
            try:
                async with connect(self.http, url, self.position, types=self.types) as connection:
                    async with aclosing(connection.batches()) as batches:
                        async for batch in batches:
                            for event in filter(None, map(self._take, batch)):
                                yield event
                    ending, wait = connection.ending, connection.retry_seconds
            except httpx.TransportError:
                pass
            except Refused as error:
                if error.status not in PASSING:
                    raise
                wait = max(wait, error.retry_after_seconds)
            if ending is Ending.END:
                return
            await asyncio.sleep(wait)

    def _take(self, frame: Frame) -> RunEvent | None:
        if frame.name == "stream.reset":  # the database was set back: everything follows from 1
            self.position = 0
        if frame.id is not None:
            self.position = frame.id
        try:
            return RunEvent.read(frame.data) if frame.data and not frame.name else None
        except ValueError as error:
            raise unreadable(200, "a frame without a run event") from error
