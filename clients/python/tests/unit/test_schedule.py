"""Faults are dealt each once before any comes again, in an order that the seed gives, and what was injected is healed."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from juinie.events import events_of_page
from juinie.torture.delays import Delays
from juinie.torture.hooks import HookFailed, command_faults
from juinie.torture.payloads import batch, content
from juinie.torture.schedule import Episode, Fault, Schedule


class AlwaysWell:
    """A probe of a deployment that nothing can harm."""

    async def until_well(self, timeout_seconds: float) -> float | None:
        return 0.0 * timeout_seconds

    async def until_published(self, timeout_seconds: float) -> float | None:
        return 0.0 * timeout_seconds

    async def until_live(self, timeout_seconds: float) -> float | None:
        return 0.0 * timeout_seconds

    async def until_served(self, timeout_seconds: float) -> float | None:
        return 0.0 * timeout_seconds


async def dealt(seed: int, episodes: int, names: str = "abcdef") -> list[str]:
    stopping, told = asyncio.Event(), list[str]()

    def tell(episode: Episode) -> None:
        told.extend(episode.names)
        if len(told) >= episodes:
            stopping.set()

    async def inject() -> None: ...

    faults = [Fault(name, name, inject, seconds=(0, 0)) for name in names]
    probe: Any = AlwaysWell()
    schedule = Schedule(faults, random.Random(seed), probe, Delays, stopping, tell, calm_seconds=(0, 0))
    async with asyncio.timeout(20):
        await schedule.run()
    return told


async def test_each_fault_comes_once_before_any_comes_again() -> None:
    assert set(Counter((await dealt(seed=1, episodes=12))[:12]).values()) <= {1, 2, 3}
    assert set((await dealt(seed=1, episodes=8))[:8]) == set("abcdef")


async def test_seed_gives_the_order() -> None:
    assert await dealt(3, 12) == await dealt(3, 12)
    assert await dealt(3, 12) != await dealt(4, 12)


async def test_fault_that_could_not_be_injected_is_healed_and_ends_the_torture() -> None:
    healed: list[str] = []

    async def inject() -> None:
        raise HookFailed("no")

    async def heal() -> None:
        healed.append("yes")

    probe: Any = AlwaysWell()
    fault = Fault("a", "a", inject, heal)
    schedule = Schedule(
        [fault], random.Random(1), probe, Delays, asyncio.Event(), lambda _: None, calm_seconds=(0, 0)
    )
    await schedule.run()

    assert schedule.broken_off == "a: HookFailed: no"
    assert schedule.stopping.is_set()
    assert healed == ["yes"]


async def test_commands_inject_and_heal(tmp_path: Any) -> None:
    mark = tmp_path / "mark"
    (fault,) = command_faults({"marked": f"touch {mark}"}, {"marked": f"rm {mark}"}, 1)
    await fault.inject()
    assert mark.exists()
    await fault.heal()
    assert not mark.exists()
    with pytest.raises(HookFailed, match="exit code 1"):
        await fault.heal()


def test_payloads_differ_and_come_back_as_they_were_sent() -> None:
    body, contents = batch(random.Random(1), "p", 3, 50)
    page = (
        b'{"events":['
        + b",".join(
            b'{"seq":%d,"type":"%b","time":"t","data":%b}' % (seq, *one.split(b" ", 1))
            for seq, one in enumerate(contents, 1)
        )
        + b'],"next_after_seq":50}'
    )

    assert len(set(contents)) == 50
    assert [content(event) for event in events_of_page(page)] == contents
    assert all(one.partition(b" ")[2] in body for one in contents)
