"""Faults in a seeded order: every kind once before any comes again, sometimes two at once."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from juinie.torture.delays import Delays
from juinie.torture.probe import Probe
from juinie.torture.trouble import first_of
from juinie.torture.waited import Waited

_TWO_AT_ONCE = 0.15
WELL_AGAIN_SECONDS = 120.0

type Act = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """Where there is nothing to heal."""


@dataclass(frozen=True)
class Fault:
    """`inject`, some seconds, `heal`. `area` is what is measured together: services, Postgres, Kafka, network.

    `holds_answers`: while it lasts the API's answers may be late, as where the way there hangs. All other faults are no excuse.
    """

    name: str
    area: str
    inject: Act
    heal: Act = nothing
    seconds: tuple[float, float] = (1.0, 5.0)
    holds_answers: bool = False


@dataclass(frozen=True, slots=True)
class Episode:
    """What happened: one fault or two, how long, and how long it took from the end to be well again (None: it was not).

    `served_seconds`: from the moment the fault was there until another replica, or the same, had served a client.
    `published_seconds`: from the end until all that had been written by then was on Kafka. `live_seconds`: from the end until
    every gateway showed what Kafka brought it; both may be `NOT_LOOKED_AT`.
    """

    names: tuple[str, ...]
    areas: tuple[str, ...]
    began_at: str
    lasted_seconds: float
    recovery_seconds: float | None
    served_seconds: float | None
    published_seconds: Waited
    live_seconds: Waited
    longest_delay_seconds: float
    p99_delay_seconds: float


@dataclass
class Schedule:
    """Runs until `stopping`, or until `episodes_left` have been. `tell` is called with each episode."""

    faults: Sequence[Fault]
    chance: random.Random
    probe: Probe
    take_delays: Callable[[], Delays]
    stopping: asyncio.Event
    tell: Callable[[Episode], None]
    calm_seconds: tuple[float, float] = (0.5, 2.0)
    episodes: list[Episode] = field(default_factory=list[Episode])
    broken_off: str | None = None
    """Why it ended before its time: a fault could not be injected or healed."""

    async def run(self) -> None:
        """One episode after the other. What was injected is healed, whatever happens.

        A fault that fails ends all: nobody knows what state the deployment is in. What was found until then stays.
        """
        async for faults in self._deals():
            try:
                episode = await self._episode(faults)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the torture ends
                self.broken_off = f"{' + '.join(fault.name for fault in faults)}: {first_of(error)}"
                self.stopping.set()
                return
            self.episodes.append(episode)
            self.tell(episode)

    async def _episode(self, faults: Sequence[Fault]) -> Episode:
        began_at, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        self.take_delays()
        injected = asyncio.Event()
        serving = asyncio.create_task(self._served(injected))
        try:
            async with asyncio.TaskGroup() as group:
                for fault in faults:
                    group.create_task(self._one(fault, injected))
            lasted = time.monotonic() - began
            recovery, published, live = await asyncio.gather(
                self.probe.until_well(WELL_AGAIN_SECONDS), self.probe.until_published(WELL_AGAIN_SECONDS),
                self.probe.until_live(WELL_AGAIN_SECONDS),
            )  # fmt: skip
            served = await serving
        finally:
            serving.cancel()
        names, areas = tuple(fault.name for fault in faults), tuple(fault.area for fault in faults)
        delays = self.take_delays()
        return Episode(
            names, areas, began_at, lasted, recovery, served, published, live, delays.longest, delays.within(0.99)
        )  # fmt: skip

    async def _deals(self) -> AsyncGenerator[list[Fault]]:
        deck = list[Fault]()
        while True:
            await self._sleep(self.chance.uniform(*self.calm_seconds))
            if self.stopping.is_set():
                return
            dealt = [self._draw(deck)]
            if self.chance.random() < _TWO_AT_ONCE:
                other = self._draw(deck)
                dealt += [other] if other.area != dealt[0].area else []
                if other not in dealt:
                    deck.append(other)
            yield dealt

    def _draw(self, deck: list[Fault]) -> Fault:
        if not deck:
            deck += self.faults
            self.chance.shuffle(deck)
        return deck.pop()

    async def _served(self, injected: asyncio.Event) -> float | None:
        await injected.wait()
        return await self.probe.until_served(WELL_AGAIN_SECONDS)

    async def _one(self, fault: Fault, injected: asyncio.Event) -> None:
        seconds = self.chance.uniform(*fault.seconds)
        try:
            await fault.inject()
            injected.set()
            await self._sleep(seconds)
        finally:
            await fault.heal()

    async def _sleep(self, seconds: float) -> None:
        """Shorter when it is time to stop."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return
