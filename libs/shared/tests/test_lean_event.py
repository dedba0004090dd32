"""The lean event is an event, and small."""

import asyncio
import sys

from juinie_shared.runtime.lean_event import LeanEvent


async def test_who_waits_is_woken_once_it_is_set_and_not_before() -> None:
    event = LeanEvent()
    waiting = [asyncio.create_task(event.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert not waiting[1].done()
    event.set()
    event.clear()
    assert await waiting[1] is await waiting[2] is True
    again = asyncio.create_task(event.wait())
    await asyncio.sleep(0)
    assert not again.done()
    event.set()
    assert await again is True
    assert event.is_set()


def test_it_is_much_smaller_than_its_base_though_nobody_waits() -> None:
    def size(event: asyncio.Event) -> int:
        return sum(map(sys.getsizeof, vars(event).values()))

    assert size(LeanEvent()) + 600 < size(asyncio.Event())
