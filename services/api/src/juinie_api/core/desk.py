"""The desk at which workers queue for runs: one queue for each set of agents, and a few clerks for all of them.

Nobody who waits asks the database. A clerk takes a run in the name of whoever has waited longest, and only where there
may be one: somebody came to an empty queue, or a look has found a run, at one query for all queues of as many agents as
go into a batch. So a run that becomes pending costs one claim and wakes one worker; workers who wait cost a look a second,
all of them together; and those who come all at once take no more connections than there are clerks, which are the
desk's own.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from juinie_api import telemetry
from juinie_api.core import patience
from juinie_api.core.claim import Claim, Claimed, Waiting
from juinie_api.core.claim_queue import ClaimQueue, Left, QueueKey, Seat, key_of
from juinie_api.core.turns import Turns
from juinie_api.core.wanted import Wanted
from juinie_shared.domain.errors import DatabaseBusy, Transient
from juinie_shared.runtime.unbroken import unbroken

CLERKS = 3
REST_SECONDS = 0.02
"""At most one look in this time, however many runs become pending."""
SOON_SECONDS = 0.05
"""A run that was found and could not be taken is locked by somebody, who may be about to let go."""
POLL_SECONDS = 1.0
"""Behind lost notifications; up to half as much again, so that processes spread out."""
BUSY_SECONDS = 0.1
ANSWER_SECONDS = 3.8
"""How long a worker may be without any answer of the database: below the 5 s of a 503."""
LOOK_SECONDS = 3.0
"""How long a look may take before those who wait are told: with what lies between two looks, the same."""

type Take = Callable[[Claim], Awaitable[Claimed | None]]
type GiveBack = Callable[[Claimed], Awaitable[None]]
type FindPending = Callable[[Iterable[Waiting]], Awaitable[set[Waiting]]]


class ClaimDesk:
    """`run()` it in a task; `claim()` from any number of requests; `look_soon()` when a run may have become pending;
    `drain()` lets all who wait go at once."""

    def __init__(
        self,
        take: Take,
        give_back: GiveBack,
        find_pending: FindPending,
        report: Callable[[str], None],
        clerks: int = CLERKS,
    ) -> None:
        self._take, self._give_back, self._find_pending, self._report = take, give_back, find_pending, report
        self._clerks = clerks
        self._queues: dict[QueueKey, ClaimQueue] = {}
        self._wanted = Wanted()
        self._listed = Turns()
        self._pending = asyncio.Event()
        self._ticks = 0
        self._draining = False

    async def claim(self, claim: Claim, wait_seconds: float, left: Left) -> Claimed | None:
        """A run for this worker; None when none came within `wait_seconds`, or this server is stopping.

        Raises:
            TooManyWaiting: it would wait, and its tenant waits for the runs of as many agents as it may.
            Transient: the database cannot be asked, or gave no answer in time. A run that was taken all the same goes
                to another worker: soon when this process learns of it, else when its lease has run out.
        """
        if self._draining:
            return None
        until = time.monotonic() + wait_seconds
        seat = Seat(claim, left)
        queue = self._sit_down(seat, waits=wait_seconds > 0)
        try:
            await _within(_answer_seconds(), seat.answered.wait())
            if not seat.answered.is_set():
                raise DatabaseBusy
            await asyncio.wait({seat.outcome}, timeout=max(0.0, until - time.monotonic()))
            seat.late = True
            if wait_seconds > 0:
                patience.begin_again()
            if seat.served:
                await asyncio.wait({seat.outcome}, timeout=max(0.0, _answer_seconds()))
                if not seat.outcome.done():
                    raise DatabaseBusy
            return _result(seat)
        finally:
            self._get_up(queue, seat, waits=wait_seconds > 0)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def look_soon(self) -> None:
        self._pending.set()

    def drain(self) -> None:
        self._draining = True
        for queue in self._queues.values():
            queue.close()

    async def run(self) -> None:
        """Look after the queues for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._clerks):
                tasks.create_task(unbroken(self._clerk))
            await self._look_for_ever()

    def _tick(self) -> int:
        self._ticks += 1
        return self._ticks

    def _sit_down(self, seat: Seat, *, waits: bool) -> ClaimQueue:
        key = key_of(seat.claim)
        queue = self._queues[key] if key in self._queues else ClaimQueue(key)
        if waits:
            self._wanted.sit_down(queue)
        self._queues[key] = queue
        queue.sit_down(seat, self._tick(), asks=not waits)
        self._list(queue)
        return queue

    def _get_up(self, queue: ClaimQueue, seat: Seat, *, waits: bool) -> None:
        seat.outcome.cancel()
        queue.get_up(seat)
        if waits:
            self._wanted.get_up(queue)
        if not len(queue):
            self._queues.pop(queue.key, None)

    def _list(self, queue: ClaimQueue) -> None:
        """Have a clerk look at it, when there is somebody to serve."""
        if queue.wants_clerk:
            self._listed.put(queue)

    async def _clerk(self) -> None:
        """Serve one worker of the queue whose turn it is, then one of the next: another tenant's, where one has some."""
        while True:
            queue = await self._listed.get()
            seat = queue.begin()
            if seat is None:
                continue
            self._list(queue)
            await self._serve(queue, seat)
            queue.end(seat)
            if seat.late or self._draining:
                seat.settle(None)
            self._list(queue)

    async def _serve(self, queue: ClaimQueue, seat: Seat) -> None:
        """Take a run for this worker, and tell it and the others what came of it."""
        began = self._tick()
        try:
            if await seat.left():
                seat.settle(None)
            elif claimed := await self._take(seat.claim):
                await self._hand_over(queue, seat, claimed)
            else:
                queue.tell(began, seat)
        except DatabaseBusy:  # nothing was taken: all stay, and are served when there is room again
            await asyncio.sleep(BUSY_SECONDS)
            queue.hope(self._tick())  # also where a look has failed meanwhile
        except Transient as error:
            queue.tell(began, seat, error)
        except Exception as error:  # noqa: BLE001 - its request is answered with it
            seat.settle(error)

    async def _hand_over(self, queue: ClaimQueue, seat: Seat, claimed: Claimed) -> None:
        """Give the worker its run; one that nobody is there to get is given back."""
        queue.found()
        try:
            left = await seat.left()
        except Exception:  # noqa: BLE001 - nobody knows, so nobody gets it
            left = True
        if left:
            seat.settle(None)
        elif seat.settle(claimed):
            return
        self._report(telemetry.CLAIM_UNDELIVERED)
        with contextlib.suppress(Transient):  # its lease runs out all the same
            await self._give_back(claimed)

    async def _look_for_ever(self) -> None:
        """Look when told to, and else in a while; sooner again where a run was found, in case it could not be taken."""
        pause = POLL_SECONDS
        while True:
            if await _within(pause * random.uniform(1, 1.5), self._pending.wait()):  # noqa: S311 - no secret
                pause = SOON_SECONDS
            self._pending.clear()
            pause = min(2 * pause, POLL_SECONDS) if await self._look() else POLL_SECONDS
            await asyncio.sleep(REST_SECONDS)

    async def _look(self) -> bool:
        """A query for each batch of the queues that somebody waits in. Also for those whose only worker is being served:
        that try may have begun before. Whether any of them found a run."""
        found = False
        for queues in self._wanted.batches():
            found = await self._look_for(queues) or found
        return found

    async def _look_for(self, queues: Sequence[ClaimQueue]) -> bool:
        """A database that is away at two looks in a row is told to all who wait: nobody else asks in their name. So is one that has no
        room for any look for as long as a worker may be without an answer: one that hangs lets nobody connect, which looks the same. And so
        is a look that takes too long, before it is over."""
        began, now = self._tick(), time.monotonic()
        failed_before = {queue: queue.unseen_since for queue in queues if queue.unseen_since is not None}
        for queue in queues:
            queue.unseen_since = failed_before.get(queue, now)
        hangs = asyncio.get_running_loop().call_later(LOOK_SECONDS, _tell_busy, queues, began)
        try:
            found = await self._find_pending({pair for queue in queues for pair in queue.pairs})
        except Transient as error:  # the others' may be well
            self._report(telemetry.CLAIM_LOOK_FAILED)
            for queue, since in failed_before.items():
                if not isinstance(error, DatabaseBusy) or time.monotonic() - since >= ANSWER_SECONDS:
                    queue.tell(began, None, error)
            return False
        finally:
            hangs.cancel()
        for queue in queues:
            queue.unseen_since = None
            if not found.isdisjoint(queue.pairs):
                queue.hope(self._tick())
                self._list(queue)
        return bool(found)


def _tell_busy(queues: Sequence[ClaimQueue], began: int) -> None:
    for queue in queues:
        queue.tell(began, None, DatabaseBusy())


def _answer_seconds() -> float:
    return min(ANSWER_SECONDS, patience.seconds_left())


async def _within(seconds: float, done: Awaitable[object]) -> bool:
    """Whether it was done in this time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await done
            return True
    return False


def _result(seat: Seat) -> Claimed | None:
    outcome = seat.outcome.result() if seat.outcome.done() else None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
