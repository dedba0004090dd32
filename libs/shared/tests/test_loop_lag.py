"""A loop that is held up says so."""

import asyncio
import time

from juinie_shared.runtime.loop_lag import LOOK_EVERY_SECONDS, watch_loop_lag
from juinie_testkit.waits import eventually


async def test_loop_that_was_held_up_is_told_by_how_much():
    seen = list[float]()
    watching = asyncio.create_task(watch_loop_lag(seen.append))
    await eventually(lambda: seen, 20, "a first look")
    time.sleep(2 * LOOK_EVERY_SECONDS)  # noqa: ASYNC251 - what must not happen, happens
    await eventually(lambda: len(seen) > 1, 20, "a look after it")
    watching.cancel()

    assert max(seen) >= LOOK_EVERY_SECONDS
    assert min(seen) >= 0
