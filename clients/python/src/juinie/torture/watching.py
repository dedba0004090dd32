"""Who watches a run: some who want all of it, and one of another sort, each sort in its turn, be the torture ever so short; and who polls it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

from juinie.torture.filters import some_types
from juinie.torture.polls import EndPoll, EventsPoll
from juinie.torture.scene import Scene
from juinie.torture.tails import TailWatcher
from juinie.torture.tokens import TokenWatcher
from juinie.torture.watcher import FilterWatcher, TortureWatcher

type Maker = Callable[[Scene, str], TortureWatcher]
type Watcher = TortureWatcher | EndPoll


def with_types(scene: Scene, run_id: str) -> TortureWatcher:
    return FilterWatcher(scene, run_id, "watcher of some types", some_types(scene.chance))


def at_tail(scene: Scene, run_id: str) -> TortureWatcher:
    return TailWatcher(scene, run_id, "watcher of the tail")


def with_token(scene: Scene, run_id: str) -> TortureWatcher:
    return TokenWatcher(scene, run_id, "watcher with a token")


def with_old_token(scene: Scene, run_id: str) -> TortureWatcher:
    return TokenWatcher(scene, run_id, "watcher with an old token", careful=False)


_OTHERS: tuple[Maker, ...] = (with_types, at_tail, with_token)
_POLLS = (EndPoll, EventsPoll)
_WITH_TOKENS = frozenset({with_token, with_old_token})


def a_poll(scene: Scene, run_id: str) -> EndPoll:
    """Of the two sorts, each in its turn."""
    return _POLLS[next(scene.polled_runs) % len(_POLLS)](scene, run_id)


def some_watchers(scene: Scene, run_id: str) -> list[TortureWatcher]:
    """The load's own, and one of another sort."""
    whole = [TortureWatcher(scene, run_id, f"watcher {number}") for number in range(scene.load.watchers)]
    return [*whole, *allowed(scene, run_id, [_OTHERS[next(scene.turns) % len(_OTHERS)]])]


def allowed(scene: Scene, run_id: str, makers: Sequence[Maker]) -> list[TortureWatcher]:
    """Those of these that the key allows."""
    return [make(scene, run_id) for make in makers if scene.leave.tokens or make not in _WITH_TOKENS]


@asynccontextmanager
async def watched(watchers: Sequence[Watcher], end_seconds: float) -> AsyncGenerator[None]:
    """They watch from now on; at the end they get so many seconds to see the run's end."""
    watching = [asyncio.create_task(watcher.watch()) for watcher in watchers]
    try:
        yield
        if watching:
            await asyncio.wait(watching, timeout=end_seconds)
    finally:
        for task in watching:
            task.cancel()
        ends = await asyncio.gather(*watching, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
