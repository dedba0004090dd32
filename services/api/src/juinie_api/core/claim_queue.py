"""Workers who wait for a run of the same agents, in the order in which they came.

Moments are ticks of one counter, so that "before" and "after" are exact. A queue is hopeful while it may have a run
that nobody has looked for yet: somebody came, or a look found one, after the last try that found nothing had begun.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from juinie_api.core.claim import Claim, Claimed, Waiting
from juinie_shared.domain.ids import TenantId

type Left = Callable[[], Awaitable[bool]]
"""Whether the worker is gone, or its key is good no more. No run is taken for such a one."""

type QueueKey = tuple[TenantId, tuple[str, ...]]


@dataclass(slots=True, eq=False)
class Seat:
    """One worker who waits, since the tick `came`.

    `answered` is set once the database has had its say; `outcome` is how it ends. `served`: a run is being taken in
    this worker's name right now, and its wait ends with what comes of that; `late`: at the latest with that.
    """

    claim: Claim
    left: Left
    came: int = 0
    served: bool = False
    late: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: asyncio.Future[Claimed | Exception | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, outcome: Claimed | Exception | None) -> bool:
        """Whether this is how it ends: not when it has ended before."""
        self.answered.set()
        if self.outcome.done():
            return False
        self.outcome.set_result(outcome)
        return True


def key_of(claim: Claim) -> QueueKey:
    """Which queue a claim belongs to, however often and in which order it names its agents."""
    return claim.tenant_id, tuple(sorted(set(claim.agents)))


class ClaimQueue:
    """The seats of one key. `listed`: it stands among the queues that want a clerk (`Turns`). `unseen_since`: when the first of the looks for
    its runs began that have failed, or not come back, in a row; None: the newest one went well.

    One is served at a time, until that finds a run twice in a row, and then as many as runs were found in a row: where
    there is one run, as usual, nobody else is looked for in vain.
    """

    def __init__(self, key: QueueKey) -> None:
        self.key = key
        self.listed = False
        self.unseen_since: float | None = None
        self._seats: dict[Seat, None] = {}
        self._hoped_at = self._empty_at = 0
        self._serving = self._found_in_a_row = 0

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def wants_clerk(self) -> bool:
        hopeful = self._hoped_at > self._empty_at
        return hopeful and self._serving < max(1, self._found_in_a_row) and self._next() is not None

    @property
    def tenant_id(self) -> TenantId:
        return self.key[0]

    @property
    def agents(self) -> int:
        """How many, all different."""
        return len(self.key[1])

    @property
    def pairs(self) -> Iterable[Waiting]:
        tenant_id, agents = self.key
        return ((tenant_id, agent) for agent in agents)

    def begin(self) -> Seat | None:
        """Serve who has waited longest, if there is hope."""
        seat = self._next() if self.wants_clerk else None
        if seat is not None:
            seat.served = True
            self._serving += 1
        return seat

    def end(self, seat: Seat) -> None:
        """That one was served; told, or not, what came of it."""
        seat.served = False
        self._serving -= 1

    def _next(self) -> Seat | None:
        return next((seat for seat in self._seats if not seat.served and not seat.outcome.done()), None)

    def hope(self, tick: int) -> None:
        """There may be a run, since this tick."""
        self._hoped_at = tick

    def sit_down(self, seat: Seat, tick: int, *, asks: bool) -> None:
        """Join at the end. `asks`: the worker wants to be looked for; else it may join those who wait already.

        Where somebody waits, whatever became pending since is being looked for, and is that one's first: unless looks fail.
        """
        if asks or self.unseen_since is not None or self._next() is None:
            self.hope(tick)
        else:
            seat.answered.set()
        seat.came = tick
        self._seats[seat] = None

    def get_up(self, seat: Seat) -> None:
        self._seats.pop(seat, None)

    def found(self) -> None:
        """A try has found a run."""
        self._found_in_a_row += 1

    def tell(self, began: int, served: Seat | None, error: Exception | None = None) -> None:
        """A try that began then found nothing, or failed; for `served`, or for nobody in particular. It is the answer of everybody who was there by then."""
        self._empty_at = max(self._empty_at, began)
        self._found_in_a_row = 0
        for seat in self._seats:
            if seat.came > began or (seat.served and seat is not served):
                continue
            if error is None:
                seat.answered.set()
            else:
                seat.settle(error)

    def close(self) -> None:
        """Let everybody go who is not being served."""
        for seat in self._seats:
            if not seat.served:
                seat.settle(None)
