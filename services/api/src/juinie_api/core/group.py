"""Appends that come together share a commit: while one flight is under way, those that arrive make up the next.

    commit() → the run's lane → flight: one statement, one commit, for as many as fit → to each its own answer

Nobody waits for others to come, only for a flight with room. What is not plain (the end of a run, a large append, a run
whose row somebody holds, that has ended or is nearly full, a lost lease, a key that was used before) is left out by the
flight, and goes alone.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import asyncpg

from juinie_api.core import patience
from juinie_api.core.append import Append, Appended, OneByOne, appended, size_of
from juinie_api.store.events import APPEND_MANY
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy, NoConnection, Transient
from juinie_shared.domain.ids import RunId
from juinie_shared.domain.times import format_time

FLIGHTS = 2
"""Under way at once: Postgres writes one while the next is put together here."""
FLIGHT_APPENDS, FLIGHT_EVENTS, FLIGHT_BYTES = 64, 1000, 512 * 1024
LARGE_EVENTS, LARGE_BYTES = 200, 64 * 1024
"""More goes alone: it would hold up the small ones."""
FLIGHT_SECONDS, LONGEST_FLIGHT_SECONDS = 2.5, 4.0
"""For its statement; and with one that Postgres gave up for a deadlock before."""
SPARE_SECONDS = 0.5
"""By how much sooner than patience ends a flight has to be expected back, for somebody to go aboard."""
LAST_FLIGHTS = 4
"""It is expected to take as long as the quickest of these: the others may have been under way while this process stood still."""
LOOK_SECONDS = 0.2
"""Between two looks for those whose patience ends while they wait for a flight."""

type _Key = tuple[int, int]
"""Tenant and run, as numbers: a UUID is hashed by Python."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """`answer` is None when it has to go alone."""

    append: Append
    size: int
    since: float
    answer: asyncio.Future[Appended | None]


class Grouped:
    """An `Appender`. Run `fly` in `FLIGHTS` tasks. `pool` is theirs alone, its sessions have `ONE_PLAN`. `landed` is called with how many
    appends a commit had.
    """

    def __init__(
        self,
        pool: Pool,
        alone: OneByOne,
        wake_publisher: Callable[[], None],
        landed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._pool, self._alone, self._wake_publisher, self._landed = pool, alone, wake_publisher, landed
        self._queue = _Queue()

    async def commit(self, append: Append) -> Appended:
        """As `Appender.commit`."""
        size = size_of(append.events)
        if append.ending or append.asks_cancel or size > LARGE_BYTES or len(append.events) > LARGE_EVENTS:
            return await self._alone.commit(append)
        loop = asyncio.get_running_loop()
        since = loop.time() - patience.seconds_spent()
        waiting = _Waiting(append, size, since, loop.create_future())
        self._queue.put(waiting)
        answer = await waiting.answer
        return answer if answer is not None else await self._alone.commit(append)

    async def fly(self) -> None:
        """Write what waits, for ever. Nobody is aboard before there is a connection: while one is made, others may fly over another."""
        while True:
            await self._queue.somebody()
            flight: Sequence[_Waiting] = ()
            try:
                async with self._pool.connection() as connection:
                    flight = self._queue.take()
                    if flight:
                        await self._write_over(connection, flight)
            except NoConnection:  # there may be one yet, or another flight may have one
                pass
            except Transient as error:
                flight = flight or self._queue.take()
                if not _is_of_one(error):
                    _fail(flight, error)
            except Exception:  # noqa: BLE001, S110 - nothing is written; one of them is at fault, and finds out alone
                pass
            except (
                BaseException
            ):  # the process is falling over, and nobody knows whether it was written: never again alone
                _fail(flight, DatabaseAway())
                raise
            finally:
                self._queue.landed(flight)

    async def _write_over(self, connection: Connection, flight: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        timers = _tell_late_in_time(flight, since, loop)
        try:
            rows = await connection.fetch(APPEND_MANY, *_arguments(flight), timeout=FLIGHT_SECONDS)
        except TimeoutError:
            _fail(flight, DatabaseAway())  # now: a connection that is dead takes its time to be given back
            raise
        finally:
            for timer in timers:
                timer.cancel()
        self._queue.took(loop.time() - since)
        for row in rows:
            answer = flight[int(row["place"]) - 1].answer
            if not answer.done():
                answer.set_result(appended(row))
        if rows:
            self._landed(len(rows))
            self._wake_publisher()


class _Queue:
    """Who waits, by run: those of one run fly together, and not while others of it are in the air.

    Tenants take turns, and so do the runs of a tenant.
    """

    def __init__(self) -> None:
        self._lanes: dict[_Key, deque[_Waiting]] = {}
        self._ready: dict[int, deque[_Key]] = {}
        """By tenant."""
        self._somebody = asyncio.Event()
        self._took = deque[float](maxlen=LAST_FLIGHTS)
        """Seconds, of the last flights that came back."""
        self._looking: asyncio.TimerHandle | None = None

    def put(self, waiting: _Waiting) -> None:
        key = _key_of(waiting)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = deque()
            self._make_ready(key)
        lane.append(waiting)
        if self._looking is None:
            self._look_later()

    async def somebody(self) -> None:
        """Wait until there is somebody who may fly."""
        while not self._ready:
            await self._somebody.wait()

    def take(self) -> list[_Waiting]:
        """The next flight. Nobody, where others have taken all."""
        takes = min(self._took, default=0.0)
        flight = _Flight(asyncio.get_running_loop().time() + takes + SPARE_SECONDS - patience.SECONDS)
        while self._ready and not flight.full:
            key = self._next_key()
            if not flight.board(self._lanes[key]):
                del self._lanes[key]
        if not self._ready:
            self._somebody.clear()
        return flight.aboard

    def took(self, seconds: float) -> None:
        """A flight that is back. One that does not come back is no measure."""
        self._took.append(min(seconds, FLIGHT_SECONDS))

    def landed(self, flight: Iterable[_Waiting]) -> None:
        """It is over. Who has no answer goes alone; who waited for its runs may fly now."""
        for waiting in flight:
            if not waiting.answer.done():
                waiting.answer.set_result(None)
        for key in set(map(_key_of, flight)):
            if self._lanes[key]:
                self._make_ready(key)
            else:
                del self._lanes[key]

    def _make_ready(self, key: _Key) -> None:
        self._ready.setdefault(key[0], deque()).append(key)
        self._somebody.set()

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Whose patience ends before the next look is told: it has not gone aboard, so nothing of it is written."""
        self._looking = None
        oldest = asyncio.get_running_loop().time() + LOOK_SECONDS - patience.SECONDS
        for lane in self._lanes.values():
            _fail((waiting for waiting in lane if waiting.since < oldest), DatabaseBusy())
            stay = [waiting for waiting in lane if not waiting.answer.done()]
            if len(stay) < len(lane):  # while no flight leaves, nobody else takes them out
                lane.clear()
                lane.extend(stay)
        if self._lanes:
            self._look_later()

    def _next_key(self) -> _Key:
        """Its tenant goes behind all others."""
        tenant_id, keys = next(iter(self._ready.items()))
        key = keys.popleft()
        del self._ready[tenant_id]
        if keys:
            self._ready[tenant_id] = keys
        return key


class _Flight:
    """Who flies together. Who has waited since before `oldest` does not: its answer would come too late."""

    def __init__(self, oldest: float) -> None:
        self.aboard: list[_Waiting] = []
        self._oldest = oldest
        self._events = self._bytes = 0

    @property
    def full(self) -> bool:
        return (
            len(self.aboard) >= FLIGHT_APPENDS or self._events >= FLIGHT_EVENTS or self._bytes >= FLIGHT_BYTES
        )

    def board(self, lane: deque[_Waiting]) -> bool:
        """As many of a run as there is room for; one request with a key at a time. False: nobody wanted to."""
        keys = set[str]()
        boarded = False
        while lane and not self.full:
            waiting = lane[0]
            once = waiting.append.once
            if once and once.key in keys:
                break
            lane.popleft()
            if waiting.answer.done():  # its client has left
                continue
            if waiting.since < self._oldest:
                waiting.answer.set_exception(DatabaseBusy())
                continue
            if once:
                keys.add(once.key)
            self._add(waiting)
            boarded = True
        return boarded

    def _add(self, waiting: _Waiting) -> None:
        self.aboard.append(waiting)
        self._events += len(waiting.append.events)
        self._bytes += waiting.size


def _key_of(waiting: _Waiting) -> _Key:
    return waiting.append.tenant_id.int, waiting.append.run_id.int


def _fail(flight: Iterable[_Waiting], error: Exception) -> None:
    for waiting in flight:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)


def _tell_late_in_time(
    flight: Sequence[_Waiting], now: float, loop: asyncio.AbstractEventLoop
) -> Sequence[asyncio.TimerHandle]:
    """Whose patience may end while the flight is under way is told then, that nobody knows yet what came of it."""
    late = now + LONGEST_FLIGHT_SECONDS - patience.SECONDS
    return [
        loop.call_at(waiting.since + patience.SECONDS, _fail, [waiting], DatabaseAway())
        for waiting in flight
        if waiting.since < late
    ]


_OF_ALL = ("08", "57")
"""Classes of SQLSTATE (PostgreSQL, appendix A) that say something of the connection, or of the time that is over."""


def _is_of_one(error: Transient) -> bool:
    """Whether the server refused the statement for something in it: then nothing is written, and the others may be well."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) if isinstance(cause, asyncpg.PostgresError) else None
    return state is not None and not state.startswith(_OF_ALL)


def _arguments(flight: Sequence[_Waiting]) -> list[Sequence[object] | None]:
    """What `APPEND_MANY` takes, column by column. No type has a comma, and JSON text of one line has no line feed.

    Raises:
        ValueError: one has, and would shift what belongs to others: nothing is written.
    """
    appends = [waiting.append for waiting in flight]
    leases = [append.lease for append in appends]
    once = [append.once for append in appends]
    counts = [len(append.events) for append in appends]
    events = [event for append in appends for event in append.events]
    times = [event.time for event in events]
    limits = [append.events_per_run for append in appends]
    return [
        [append.run_id for append in appends],
        [append.tenant_id for append in appends],
        leases if any(leases) else None,
        [append.starts for append in appends],
        counts,
        [waiting.size for waiting in flight],
        [append.traceparent for append in appends],
        *(
            (
                [key and key.key for key in once],
                [key and key.route for key in once],
                [key and key.fingerprint for key in once],
            )
            if any(once)
            else (None, None, None)
        ),
        list(accumulate(counts[:-1], initial=1)),
        _in_a_row([event.type for event in events], ","),
        _in_a_row([event.data for event in events], "\n"),
        [time and format_time(time) for time in times] if any(times) else None,
        _tops(appends, limits) if any(limits) else None,
    ]


def _tops(appends: Sequence[Append], limits: Sequence[int | None]) -> Sequence[int | None]:
    """For each, the largest seq of its run with which all that is aboard for the run has room behind it, and a `run.started`."""
    aboard = Counter[RunId]()
    for append in appends:
        aboard[append.run_id] += len(append.events)
    return [
        limit and limit - aboard[append.run_id] - 1 for append, limit in zip(appends, limits, strict=True)
    ]


def _in_a_row(texts: Sequence[str], between: str) -> str:
    joined = between.join(texts)
    if joined.count(between) != len(texts) - 1:
        raise ValueError("An event's type or data has what stands between two of them.")
    return joined
