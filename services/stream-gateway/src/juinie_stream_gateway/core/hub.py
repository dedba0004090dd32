"""Who watches which run, and how an event reaches all of them: one ready frame, joined per batch, one write each.

A room holds the watchers of one run and its splice. A watcher goes `live` when its position is the splice's head, and stays so
while its outlet takes more; so whatever moves the head is written to the live watchers and to nobody else. All
others catch up by themselves (`core/follow.py`) until they stand at the head. Nothing here waits.

Where there are many watchers, of one run or of several that come together, they are written to in slices, between which others have
their turn; so they are where all are sent away, be it by the end. A live watcher may then stand behind the head by what is still
undelivered; it is written to only when it stands just before a batch, so whatever befell it meanwhile, none is left out or comes twice.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

from juinie_shared.contracts.record import RunRecords
from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId
from juinie_stream_gateway.core.recent import RecentFrames
from juinie_stream_gateway.core.splice import Known, Splice, Verdict
from juinie_stream_gateway.core.watcher import Types, Watcher, joined
from juinie_stream_gateway.store import Event, Page, RunRow

BATCH_BYTES = 128 * 1024
"""Joined at once. Between two batches a watcher whose outlet is full drops out, which bounds what it holds."""
SLICE = 250
"""Watchers that are written to in one turn, some 2 ms, where there are more than `FEW`; and as many as are sent away in one."""
FEW = 1000
"""So many are written to at once, of all runs that events came of."""
MOST_UNDELIVERED = 8
"""Batches of a run. Where more comes than can be written, all watchers go on by themselves, as each can."""

type Pack = Callable[[bytes], bytes]
"""Frames as a `Line` takes them."""


def write_to(
    watchers: Iterable[Watcher], types: Types, events: Sequence[Event], pack: Pack, stopped: list[Watcher]
) -> None:
    """The innermost loop of all: for who keeps up it is one call, with the same bytes for all. Adds to `stopped` who can follow no more."""
    before, last = events[0].seq - 1, events[-1].seq
    frames, shown = joined(events, types)
    packed = pack(frames) if frames else b""
    for watcher in watchers:
        if watcher.position != before or not watcher.live:
            if watcher.live and watcher.position < last:
                stopped.append(watcher)
        elif shown is not None and watcher.caught_up and (write := watcher.line.write) is not None:
            try:
                write(packed)
            except Exception:  # noqa: BLE001 - one connection's: what it is shows when the watcher writes for itself
                stopped.append(watcher)
            else:
                watcher.position, watcher.shown = last, shown
        else:
            try:
                watcher.advance(frames, last, shown)
            except Exception:  # noqa: BLE001 - likewise
                stopped.append(watcher)
            else:
                if watcher.outlet.full:
                    stopped.append(watcher)


class Delivery:
    """A batch on its way to those who are live when it begins. `pack`: how the wire has it."""

    def __init__(self, events: list[Event], pack: Pack) -> None:
        self._events, self._pack = events, pack
        self._waiting: list[tuple[Types, list[Watcher]]] | None = None

    @property
    def done(self) -> bool:
        return self._waiting is not None and not self._waiting

    def join(self, events: Sequence[Event]) -> bool:
        """Take these along, which follow. False: it has begun, or would be too large."""
        if self._waiting is not None or _size_of(self._events) + _size_of(events) > BATCH_BYTES:
            return False
        self._events.extend(events)
        return True

    def go_on(self, live: Mapping[Types, Iterable[Watcher]], most: int) -> tuple[int, list[Watcher]]:
        """Write to `most` watchers, of those who are `live` as it begins. Gives how many are left of that, and who can follow no more."""
        if self._waiting is None:
            self._waiting = [(types, list(group)) for types, group in live.items()]
        stopped: list[Watcher] = []
        while self._waiting and most:
            types, group = self._waiting[-1]
            now, group[:] = group[:most], group[most:]
            most -= len(now)
            write_to(now, types, self._events, self._pack, stopped)
            if not group:
                self._waiting.pop()
        return most, stopped


@dataclass(eq=False, slots=True, weakref_slot=True)
class Room:
    """The watchers of one run."""

    run_id: RunId
    tenant_id: TenantId
    key: bytes = field(init=False)
    """Of its records on Kafka."""
    key_hash: int | None = None
    """Of `key`, which says in which partition they are. Whoever reads Kafka leaves it here, for as long as the room is there."""
    records: RunRecords = field(init=False)
    splice: Splice = field(default_factory=Splice)
    watchers: dict[Watcher, KeyId] = field(default_factory=dict[Watcher, KeyId])
    live: dict[Types, set[Watcher]] = field(default_factory=dict[Types, set[Watcher]])
    undelivered: list[Delivery] = field(default_factory=list[Delivery])
    listed: bool = False
    """Its next slice will be written in a turn that is to come."""

    def __post_init__(self) -> None:
        self.key = str(self.run_id).encode()
        self.records = RunRecords(self.run_id, self.tenant_id)

    def live_watchers(self) -> list[Watcher]:
        return [watcher for group in self.live.values() for watcher in group]


class Hub:
    """All rooms. `refill` is called with a room whose splice wants a page read: see `Splice.begin_read`. `later` calls what it is
    given, once others have had their turn. `pack`: how lines take frames.
    """

    def __init__(
        self, recent: RecentFrames, refill: Callable[[Room], None], later: Callable[[Callable[[], None]], object],
        *, pack: Pack = bytes, slice_of: int = SLICE, few: int = FEW,
    ) -> None:  # fmt: skip
        self.kafka_live = False
        self._recent = recent
        self._refill = refill
        self._later = later
        self._pack = pack
        self._slice, self._few = slice_of, few
        self._rooms: dict[RunId, Room] = {}
        self.rooms_by_key: dict[bytes | None, Room] = {}
        """By the key of its records. For others to read: `None`, which a record may have, is asked for and never there."""
        self._taken: dict[Room, list[Event]] = {}
        self._unfinished: deque[Room] = deque()
        """Rooms with watchers that are still to be written to, or to be told the end: a slice of them in each turn."""
        self._turn_comes = False

    def rooms(self) -> list[Room]:
        return list(self._rooms.values())

    def watchers(self) -> Iterator[Watcher]:
        for room in self.rooms():
            yield from list(room.watchers)

    # ---- watchers come and go

    def watchers_of(self, run_id: RunId) -> int:
        """How many watch this run here."""
        room = self._rooms.get(run_id)
        return len(room.watchers) if room else 0

    def attach(self, run_id: RunId, tenant_id: TenantId, key_id: KeyId, watcher: Watcher) -> Room:
        """From now on the room hears what is live. What is stored must be read after this, or some would be missed."""
        room = self._rooms.get(run_id)
        if room is None:
            room = self._rooms[run_id] = Room(run_id, tenant_id)
            self.rooms_by_key[room.key] = room
        room.watchers[watcher] = key_id
        return room

    def detach(self, room: Room, watcher: Watcher) -> None:
        """The watcher has left; the last one closes the room."""
        self._suspend(room, watcher)
        room.watchers.pop(watcher, None)
        if not room.watchers and self._rooms.get(room.run_id) is room:
            del self._rooms[room.run_id], self.rooms_by_key[room.key]
            self._recent.forget(room.key)

    def go_live(self, room: Room, watcher: Watcher) -> bool:
        """True when the watcher stands at the head: what comes next is written to it as it comes."""
        if watcher.position != room.splice.head:
            return False
        watcher.live = True
        room.live.setdefault(watcher.types, set()).add(watcher)
        if watcher.owed > watcher.position:
            room.splice.want_read()
        self._after(room)
        return True

    def recent(self, room: Room, position: Seq) -> list[Event]:
        """What follows `position`, if it is still at hand."""
        return self._recent.after(room.key, position)

    # ---- events come

    def take_record(self, room: Room, event: Event) -> Verdict:
        """A record of this run came, in the order of its partition. What becomes of it; `hand_on` then writes what is to be written."""
        verdict = room.splice.take_record(event)
        news = self._taken.get(room)
        if news is None:
            news = self._taken[room] = []
        if verdict is Verdict.NEXT:
            news.append(event)
        return verdict

    def hand_on(self) -> None:
        """Write what was taken since, of all runs in one go: clients that are woken for one another's sake are woken once, and
        what comes between two writes is as little as can be.
        """
        taken, self._taken = self._taken, {}
        self._hand_on(taken)

    def take_page(self, room: Room, page: Page | None) -> None:
        """A watcher read this page for itself; the others may not have all of it. None: the run is gone."""
        if page is None:
            self.close_room(room, "deleted")
        else:
            self._skip_past_retention(room, page.row)
            self._hand_on({room: room.splice.take_page(page)})

    def end_read(self, room: Room, page: Page | None) -> None:
        """The read that `refill` asked for is over; without a page when it failed."""
        if page is not None:
            self._skip_past_retention(room, page.row)
        news = room.splice.end_read(page)
        if page is not None:  # a failed read is due again, but not this instant: the tail check comes by
            self._hand_on({room: news})

    def take_row(self, room: Room, row: RunRow | None, known_before: Known | None) -> None:
        """The tail check found this row; None when the run is gone."""
        if row is None:
            self.close_room(room, "deleted")
        elif room.splice.take_row(row, known_before, not self.kafka_live):
            self._set_back(room, row.last_seq)
        else:
            self._after(room)

    def close_room(self, room: Room, reason: str) -> None:
        """Whoever found that out says so: those who are told already are left alone."""
        self._send_away([watcher for watcher in room.watchers if watcher.outlet.closing is None], reason)

    # ---- inside

    def _hand_on(self, news: Mapping[Room, Sequence[Event]]) -> None:
        """In three rounds and not run by run: each write comes back from the kernel to cold caches, so little stands between two."""
        # A closed room's page was on the way; the run may have a new room by now
        open_rooms = [room for room in news if room.watchers]
        ready = [(room, batch) for room in open_rooms for batch in _batches(news[room])]
        for room, batch in ready:
            self._recent.add(room.key, batch)
        count = 0
        for room, batch in ready:
            count += len(room.watchers)
            if room.undelivered or count > self._few:
                self._hand_on_in_turn(room, list(batch))
            else:
                self._write_now(room, batch)
        if self._unfinished and not self._turn_comes:
            self._turn()
        for room in open_rooms:
            self._after(room)

    def _write_now(self, room: Room, batch: Sequence[Event]) -> None:
        stopped: list[Watcher] = []
        for types, watchers in room.live.items():
            write_to(watchers, types, batch, self._pack, stopped)
        for watcher in stopped:
            self._suspend(room, watcher)

    def _hand_on_in_turn(self, room: Room, batch: list[Event]) -> None:
        if not (room.undelivered and room.undelivered[-1].join(batch)):
            room.undelivered.append(Delivery(batch, self._pack))
        self._list(room)
        if len(room.undelivered) > MOST_UNDELIVERED:
            room.undelivered.clear()
            for watcher in room.live_watchers():
                self._suspend(room, watcher)

    def _list(self, room: Room) -> None:
        if not room.listed:
            room.listed = True
            self._unfinished.append(room)

    def _come_again(self) -> None:
        if self._unfinished and not self._turn_comes:
            self._turn_comes = True
            self._later(self._turn)

    def _turn(self) -> None:
        try:
            self._write_a_slice()
        finally:  # one run's fault holds up no other
            self._turn_comes = False
            self._come_again()

    def _write_a_slice(self) -> None:
        """To watchers of as many rooms as it takes, each of which has its turn."""
        most = self._slice
        while most and self._unfinished:
            room = self._unfinished.popleft()
            room.listed = False
            most = self._deliver(room, most)
            if room.undelivered:
                self._list(room)
            elif room.watchers:
                self._after(room)
                if room.listed:
                    return  # after a slice that it has told the end

    def _deliver(self, room: Room, most: int) -> int:
        """Write to so many watchers. Gives how many are left of that."""
        while room.undelivered and most:
            most, stopped = room.undelivered[0].go_on(room.live, most)
            for watcher in stopped:
                self._suspend(room, watcher)
            if room.undelivered[0].done:
                room.undelivered.pop(0)
        return most

    def _deliver_all(self, room: Room) -> None:
        """What is undelivered, to everybody, before something that overtakes it."""
        while room.undelivered:
            _, stopped = room.undelivered.pop(0).go_on(room.live, len(room.watchers))
            for watcher in stopped:
                self._suspend(room, watcher)

    def _after(self, room: Room) -> None:
        """What follows from where the splice stands now, once all is delivered: the end, or a read."""
        if room.undelivered:
            return
        if room.splice.final and room.splice.ended:
            self._end(room, room.splice.final)
        elif room.splice.begin_read():
            self._refill(room)

    def _end(self, room: Room, final: RunRow) -> None:
        """Tell a slice of them, and the others in turns that come."""
        for watcher in list(islice(chain.from_iterable(room.live.values()), self._slice)):
            try:
                if watcher.position == room.splice.head:  # who is not there goes on by itself
                    watcher.end(final)
            finally:  # afterwards: who is woken by its end waits for its turn
                self._suspend(room, watcher)
        if room.live:
            self._list(room)
            self._come_again()

    def _send_away(self, watchers: list[Watcher], reason: str) -> None:
        """A slice of them now, and the others in turns that come."""
        for watcher in watchers[: self._slice]:
            watcher.outlet.reconnect(reason)
        if others := watchers[self._slice :]:
            self._later(partial(self._send_away, others, reason))

    def _skip_past_retention(self, room: Room, row: RunRow) -> None:
        """Nobody can have what lay between: the live watchers are told, and stay at the head."""
        if room.splice.skip_past_retention(row):
            self._recent.forget(room.key)
            self._deliver_all(room)
            for watcher in room.live_watchers():
                watcher.show((), row.retained_from_seq)

    def _set_back(self, room: Room, last_seq: Seq) -> None:
        self._recent.forget(room.key)
        room.undelivered.clear()
        for watcher in [watcher for watcher in room.watchers if watcher.outlet.closing is None]:
            if watcher.position != last_seq:
                self._suspend(room, watcher)
            if watcher.position > last_seq:
                watcher.set_back(last_seq)
            else:
                watcher.owe_at_most(last_seq)

    def _suspend(self, room: Room, watcher: Watcher) -> None:
        """Out of the live set, at the position that it has: from there it goes on by itself."""
        watcher.live = False
        if group := room.live.get(watcher.types):
            group.discard(watcher)
            if not group:
                del room.live[watcher.types]
        watcher.outlet.wake()


def _size_of(events: Iterable[Event]) -> int:
    return sum([len(event.frame) for event in events])


def _batches(events: Sequence[Event]) -> Sequence[Sequence[Event]]:
    """In pieces of `BATCH_BYTES` at most, or of one event."""
    if len(events) <= 1:
        return (events,) if events else ()
    batches: list[list[Event]] = []
    size = 0
    for event in events:
        size += len(event.frame)
        if not batches or size > BATCH_BYTES:
            batches.append([])
            size = len(event.frame)
        batches[-1].append(event)
    return batches
