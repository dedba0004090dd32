"""One watcher's life: attach to what is live, read what is stored, go live; again whenever it has fallen behind."""

from collections.abc import Awaitable, Callable

from juinie_shared.domain.errors import Transient
from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId
from juinie_stream_gateway.core.backfill import Backfill
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.core.watcher import Watcher

NOTHING_YET_SECONDS = 0.2
"""Between two reads of which the first brought nothing: the tail check will tell why."""

type Listen = Callable[[Room], Awaitable[None]]
"""Returns once the records of its run are being read, or cannot be for now."""


class Follower:
    """Follows runs for watchers."""

    def __init__(self, hub: Hub, backfill: Backfill, listen: Listen) -> None:
        self._hub = hub
        self._backfill = backfill
        self._listen = listen

    def join(self, run_id: RunId, tenant_id: TenantId, key_id: KeyId, watcher: Watcher) -> Room:
        """Who has joined leaves."""
        return self._hub.attach(run_id, tenant_id, key_id, watcher)

    def leave(self, room: Room, watcher: Watcher) -> None:
        """The watcher gets nothing more from here."""
        self._hub.detach(room, watcher)

    async def follow(self, room: Room, watcher: Watcher) -> bool:
        """Feed the watcher until it rests: the hub writes to it, and nothing is left to do before its outlet is woken. Then call
        this again. False: the outlet is closing.
        """
        try:
            if watcher.outlet.idle:  # else there is enough for it to take
                self._show_recent(room, watcher)
            await watcher.outlet.flush()  # the first bytes, before anything that may take time
            if not (watcher.live or watcher.outlet.closing):
                await self._listen(room)
            while not watcher.outlet.closing:
                if watcher.live or self._hub.go_live(room, watcher):
                    if watcher.live and watcher.outlet.idle:
                        return True
                elif not await self._catch_up(room, watcher):
                    await watcher.outlet.wait(NOTHING_YET_SECONDS)
                await watcher.outlet.flush()
        except Transient as error:
            watcher.outlet.reconnect(error.code)
        return False

    async def _catch_up(self, room: Room, watcher: Watcher) -> bool:
        """One page nearer to the head. The page starts at the head where the watcher is beyond it: the room comes along."""
        if self._show_recent(room, watcher):
            return True
        head = room.splice.head
        page = await self._backfill.page(
            room, watcher.position if head is None else min(watcher.position, head)
        )
        self._hub.take_page(room, page)
        if page is None:
            return False
        watcher.refills += 1
        if watcher.is_beyond(page.row):
            watcher.set_back(page.row.last_seq)
            return True
        return watcher.show(page.events, page.row.retained_from_seq) or room.splice.head != head

    def _show_recent(self, room: Room, watcher: Watcher) -> bool:
        """What is at hand of the events that follow. False: nothing."""
        recent = self._hub.recent(room, watcher.position)
        return bool(recent) and watcher.show(recent, Seq(1))
