"""The pulse of very many streams leaves others their turns."""

import asyncio
from collections import Counter
from typing import Any, cast

import pytest

from juinie_stream_gateway.core import pulse
from juinie_testkit.turns import turns
from juinie_testkit.waits import eventually


class Beaten:
    """A watcher that notes in which turn of the loop it was looked at."""

    def __init__(self, note: Any) -> None:
        self._note = note
        self.moves = 0

    def move_cursor(self) -> None:
        self.moves += 1

    def beat(self, _ticks: int) -> None:
        self._note()


class Crowd:
    """A hub with so many watchers."""

    def __init__(self, watchers: list[Beaten]) -> None:
        self._watchers = watchers

    def watchers(self) -> Any:
        return iter(self._watchers)


async def test_of_very_many_a_few_are_looked_at_in_each_turn_and_each_once_a_tick(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(pulse, "AT_ONCE", 3)
    looked_at = Counter[int]()
    with turns() as turn:
        watchers = [Beaten(lambda: looked_at.update([turn()])) for _ in range(10)]
        there = pulse.Pulse(cast("Any", Crowd(watchers)), heartbeat_seconds=0.02, cursor_seconds=0.04)
        running = asyncio.create_task(there.run())
        await eventually(lambda: looked_at.total() >= 40, 10, "four ticks")
        running.cancel()
        await asyncio.wait({running})
    assert max(looked_at.values()) == 3
    assert {watcher.moves for watcher in watchers} == {looked_at.total() // 10 // 2}
