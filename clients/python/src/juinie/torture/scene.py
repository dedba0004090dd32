"""What writers, watchers and faults share: the deployment, the checker, the clock, the seeded chance, and the figures."""

import asyncio
import itertools
import random
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from juinie.client import Client
from juinie.torture.answers import Answers
from juinie.torture.checker import Checker
from juinie.torture.jobs import Job
from juinie.torture.leave import Leave
from juinie.torture.waited import NOT_LOOKED_AT, NotLookedAt

_CONCLUDED_KEPT, _DELETED_KEPT = 1000, 50


@dataclass(frozen=True)
class Load:
    """How much is written and watched. `rate` is in events a second, over all runs."""

    rate: float = 500.0
    runs_at_once: int = 8
    worked_at_once: int = 3
    """Runs that workers claim, besides."""
    quiet_at_once: int = 1
    """Runs on which little happens, besides."""
    watchers: int = 2
    """Of each run, and one more that has types, a token, or comes late."""
    batch: int = 100
    run_events: int = 1500
    patience_seconds: float = 300.0
    """How long an append is repeated before it counts as unanswered."""
    end_seconds: float = 60.0
    """How long after the end a watcher may take to be told of it, over all drops and faults."""


@dataclass
class Figures:
    """Counted while it goes on. `wrong_answers` are refusals that nobody asked for: each is a finding too."""

    appends: int = 0
    given_up: int = 0
    """Appends that were abandoned on purpose, so that nobody knows whether they are stored."""
    unanswered: int = 0
    """Appends that got no answer, for as long as there was patience."""
    connections: int = 0
    watchers: Counter[str] = field(default_factory=Counter[str])
    """Those that were let in, by their sort."""
    tokens_expired: int = 0
    """How often a token was used until it was refused."""
    deleted: int = 0
    """Runs whose DELETE was answered."""
    deletes_unanswered: int = 0
    turned_away: int = 0
    """Watchers that were told 404 before they had the end of such a run."""
    polls: int = 0
    """Long polls that were answered."""
    polls_in_vain: int = 0
    """Those of them that were told, at their end, that there is nothing yet."""
    claims: int = 0
    leases_lost: int = 0
    """How often a worker was told that its lease is lost."""
    dead_letters: int | NotLookedAt = NOT_LOOKED_AT
    """Those that came meanwhile."""
    wrong_answers: Counter[str] = field(default_factory=Counter[str])


class Concluded(NamedTuple):
    """A run that has been checked, and when it began, by this machine's clock."""

    run_id: str
    began_at: float


class Deleted(NamedTuple):
    """A run that is gone, when it began, and the seqs that somebody was shown, by the marks of their bytes."""

    run_id: str
    began_at: float
    shown: dict[int, int]


@dataclass
class Scene:
    """One torture. `stopping` is set when no new run is to begin."""

    client: Client
    load: Load
    chance: random.Random
    checker: Checker = field(default_factory=Checker)
    figures: Figures = field(default_factory=Figures)
    answers: Answers = field(default_factory=Answers)
    """The judge of the answers that `client` gets, if it was given its transport."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    open_runs: set[str] = field(default_factory=set[str])
    """Runs that are written to now: a fault may pick one."""
    jobs: dict[str, Job] = field(default_factory=dict[str, Job])
    """Runs that workers may claim, or have."""
    work_agent: str = field(default_factory=lambda: f"torture-{uuid.uuid4().hex[:12]}")
    """Of its own, so that nobody claims what is not of this torture."""
    concluded: deque[Concluded] = field(default_factory=lambda: deque(maxlen=_CONCLUDED_KEPT))
    """The last of them: some are looked at once more, at the end."""
    deleted: deque[Deleted] = field(default_factory=lambda: deque(maxlen=_DELETED_KEPT))
    """Likewise."""
    leave: Leave = field(default_factory=Leave)
    turns: "itertools.count[int]" = field(default_factory=itertools.count)
    """Whose turn it is, of the other sorts of watchers."""
    busy_runs: "itertools.count[int]" = field(default_factory=itertools.count)
    polled_runs: "itertools.count[int]" = field(default_factory=itertools.count)
    _next_at: float = 0.0

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def conclude(self, run_id: str, began_at: float) -> None:
        """All its readers are done. `began_at` is of `time.time()`, before it was created.

        Of a run of which nobody knows whether it was deleted, nobody knows what there is to be seen later.
        """
        checker = self.checker
        if checker.is_gone(run_id):
            self.deleted.append(Deleted(run_id, began_at, checker.shown(run_id)))
        elif not checker.may_be_gone(run_id):
            self.concluded.append(Concluded(run_id, began_at))
        checker.conclude(run_id)

    async def pace(self, events: int) -> None:
        """Wait for the turn of so many events. What a fault held up is not made up for."""
        now = self.now()
        self._next_at = max(self._next_at, now - 0.5) + events / self.load.rate
        await asyncio.sleep(self._next_at - now)
