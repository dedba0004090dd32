"""Stored events for watchers that are behind: by pages, each read once for all who stand at the same place."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from weakref import WeakKeyDictionary

from juinie_shared.domain.errors import Transient
from juinie_shared.domain.ids import RunId, Seq
from juinie_shared.runtime.logs import get_logger
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.store import Page
from juinie_stream_gateway.telemetry import LOG_STREAM_FAILED

INTERNAL = "internal"
"""Why watchers are sent away by a fault of ours: they come again."""

_log = get_logger("stream")

type ReadPage = Callable[[RunId, Seq], Awaitable[Page | None]]
type Count = Callable[[], None]
type _Flights = dict[tuple[int, Seq], asyncio.Task[Page | None]]
"""By how often the run had been set back as they began, and the seq that they begin after."""


def _uncounted() -> None:
    pass


class Backfill:
    """Reads pages. A flight belongs to a room, so that whoever joins one heard the room's live events since before."""

    def __init__(
        self, read_page: ReadPage, count_page: Count = _uncounted, count_refill: Count = _uncounted,
        read_page_soon: ReadPage | None = None,
    ) -> None:  # fmt: skip
        """`read_page_soon` reads for who is live: it is not to wait for all others who are behind."""
        self._read_page, self._read_page_soon = read_page, read_page_soon or read_page
        self._count_page = count_page
        self._count_refill = count_refill
        self._flights: WeakKeyDictionary[Room, _Flights] = WeakKeyDictionary()

    async def page(self, room: Room, after_seq: Seq) -> Page | None:
        """The page after `after_seq`, perhaps of a read that another watcher began. None: the run is gone.

        Raises:
            Transient: the database cannot be asked.
        """
        flights = self._flights.setdefault(room, {})
        while True:
            key = room.splice.times_set_back, after_seq
            flight = flights.get(key)
            if flight is None:
                flight = flights[key] = asyncio.create_task(self._read(room, after_seq))
                flight.add_done_callback(partial(_land, flights, key))
            page = await asyncio.shield(flight)  # who leaves takes nobody's page away
            if room.splice.times_set_back == key[0]:
                return page

    async def refill(self, hub: Hub, room: Room) -> None:
        """What `Splice.begin_read` asked for. Never joins a flight: that one may have begun before the news came."""
        page: Page | None = None
        try:
            self._count_refill()
            before = room.splice.times_set_back
            page = await self._read_page_soon(room.run_id, room.splice.head or Seq(0))
            if room.splice.times_set_back != before:
                page = None
            elif page is None:
                hub.take_page(room, None)
        except Transient:
            pass  # the tail check asks again
        except Exception:  # noqa: BLE001 - one run's: its watchers are told, and all others go on
            _log.exception(LOG_STREAM_FAILED, run_id=str(room.run_id))
            hub.close_room(room, INTERNAL)
        finally:
            hub.end_read(room, page)

    async def _read(self, room: Room, after_seq: Seq) -> Page | None:
        self._count_page()
        return await self._read_page(room.run_id, after_seq)


def _land(flights: _Flights, key: tuple[int, Seq], flight: asyncio.Task[Page | None]) -> None:
    del flights[key]
    if not flight.cancelled():
        flight.exception()  # seen: when all who waited have left, nobody else looks
