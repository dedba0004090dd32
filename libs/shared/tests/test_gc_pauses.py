"""The garbage collector: its pauses are told, and all is as it was afterwards."""

import asyncio
import gc
import weakref

import pytest

from juinie_shared.runtime import gc_pauses
from juinie_shared.runtime.gc_pauses import THRESHOLDS, tame_gc
from juinie_testkit.waits import eventually


async def test_pauses_are_told_and_everything_is_put_back():
    before, frozen, callbacks = gc.get_threshold(), gc.get_freeze_count(), list(gc.callbacks)
    pauses: list[float] = []
    taming = asyncio.create_task(tame_gc(pauses.append))
    await asyncio.sleep(0)
    assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() > 10_000
    await eventually(lambda: len(pauses) > 0, 10, "a pause that is told")
    assert all(0 < pause < 10 for pause in pauses)
    taming.cancel()
    await asyncio.wait({taming})
    assert (gc.get_threshold(), gc.get_freeze_count(), gc.callbacks) == (before, frozen, callbacks)


async def test_what_is_young_is_looked_at_by_the_clock():
    """However little was made since, less what was freed: nothing of a crowd adds up to one long collection."""
    taming = asyncio.create_task(tame_gc(lambda _: None))
    await asyncio.sleep(0)
    kept: list[list[object]] = [[] for _ in range(100)]

    def young() -> int:
        ids = {id(each) for age in (0, 1) for each in gc.get_objects(generation=age)}
        return sum(id(each) in ids for each in kept)

    assert young() == len(kept)
    await eventually(lambda: young() == 0, 10, "they are old")
    taming.cancel()
    await asyncio.wait({taming})


@pytest.mark.parametrize(
    ("pause_seconds", "slept"), [(1e-12, [0.1, 0.01]), (60.0, [0.1, 0.1])], ids=["too long", "short enough"]
)
async def test_the_longer_the_young_take_the_sooner_they_are_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, pause_seconds: float, slept: list[float]
):
    asked = list[float]()
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        asked.append(seconds)
        await sleep(0)

    monkeypatch.setattr(gc_pauses, "YOUNG_PAUSE_SECONDS", pause_seconds)
    monkeypatch.setattr(gc_pauses.asyncio, "sleep", note)
    taming = asyncio.create_task(tame_gc(lambda _: None))
    while len(asked) < 10:
        await sleep(0)
    taming.cancel()
    await asyncio.wait({taming})
    assert [asked[0], *{*asked[1:10]}] == slept


async def test_where_another_thread_collects_already_nothing_ends(monkeypatch: pytest.MonkeyPatch):
    """Then a collection does nothing, and tells of no pause."""
    taming = asyncio.create_task(tame_gc(lambda _: None))
    await asyncio.sleep(0)
    monkeypatch.setattr(gc_pauses.gc, "collect", lambda _generation: 0)
    await asyncio.sleep(3 * gc_pauses.YOUNG_EVERY_SECONDS)
    assert not taming.done()
    taming.cancel()
    await asyncio.wait({taming})


def test_the_next_look_is_due_when_as_much_is_new_as_may_be():
    assert gc_pauses._next(0.1, 0.008) == pytest.approx(0.025)
    assert gc_pauses._next(0.02, 0.0005) == pytest.approx(0.08)


async def test_circles_of_old_objects_are_found_by_the_clock(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gc_pauses, "FULL_EVERY_SECONDS", 1.0)

    class Circle:
        def __init__(self) -> None:
            self.own = self

    taming = asyncio.create_task(tame_gc(lambda _: None))
    await asyncio.sleep(0)
    circle = Circle()
    found = weakref.ref(circle)
    await asyncio.sleep(0.3)
    assert any(each is circle for each in gc.get_objects(generation=2))
    del circle
    await eventually(lambda: found() is None, 20, "it is found")
    taming.cancel()
    await asyncio.wait({taming})
