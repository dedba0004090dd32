"""The garbage collector's pauses: shorter, and told. Nothing else runs in a process while it collects.

A full collection looks at every object there is: 40 ms and more with ten thousand connections open, and by its own measure it
is due every few seconds while they come and go. What a service makes is mostly freed without it, since nothing that comes
and goes (connections, requests, watchers) is left in a circle.

Nor is a young collection always short: Python counts what is made less what is freed, of any age, so that where a crowd comes and as much is
freed meanwhile, all of the crowd is still young when one is due. So the young are collected by the clock, too, and the sooner the longer it took.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable
from typing import Any

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
THRESHOLDS = (5_000, 5, 1_000_000)
"""A young collection after so many more objects made than freed, a middle one after five of these. A full one by the clock alone."""
FULL_EVERY_SECONDS = 600.0
"""So long may a circle of old objects hold what it has, until it is found."""
YOUNG_EVERY_SECONDS, SOONEST_SECONDS = 0.1, 0.01
YOUNG_PAUSE_SECONDS = 0.002
"""Where a young collection takes longer than that, the next one comes sooner: while six thousand connections came in a second, ten were 15 ms each."""
_MIDDLE, _FULL = 1, 2
"""With the younger ones. What is left is old then."""
_KEPT = 1_000


async def tame_gc(observe: Callable[[float], None]) -> None:
    """Collect once, leave what there is by then (all code) out of later collections, and tell their pauses in seconds, the young ones' too.

    Until cancelled: then all is as it was.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    began = 0.0
    pauses = deque[float](maxlen=_KEPT)

    def note(phase: str, _info: dict[str, Any]) -> None:
        """In the midst of whatever made an object: so it takes no lock, and tells nobody yet."""
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            pauses.append(time.perf_counter() - began)

    gc.callbacks.append(note)
    try:
        full_at, every = time.monotonic() + FULL_EVERY_SECONDS, YOUNG_EVERY_SECONDS
        while True:
            await asyncio.sleep(every)
            if time.monotonic() < full_at:
                # Not by what `note` says: where another thread collects already, this does nothing, and tells nothing.
                looked_at = time.perf_counter()
                gc.collect(_MIDDLE)
                every = _next(every, time.perf_counter() - looked_at)
            else:
                gc.collect(_FULL)
                full_at = time.monotonic() + FULL_EVERY_SECONDS
            while pauses:
                observe(pauses.popleft())
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*before)
        gc.unfreeze()


def _next(every: float, took: float) -> float:
    """After how many seconds the next young collection takes no longer than it should, if as much is made as before the last."""
    return min(YOUNG_EVERY_SECONDS, max(SOONEST_SECONDS, every * YOUNG_PAUSE_SECONDS / max(took, 1e-6)))
