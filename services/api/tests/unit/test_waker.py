"""The look at the runs that are waited for: however often something is committed, it takes a part of the time only."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from juinie_api.core import waker as waker_module
from juinie_api.core.waker import POLL_SECONDS, REST_SECONDS, Waker, rest_seconds
from juinie_shared.domain.ids import new_run_id
from juinie_testkit.waits import eventually

LOOK_SECONDS = 0.05


class SlowPool:
    """Takes its time for a query, and finds every run as it was."""

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        yield self

    async def fetch(self, _statement: str, run_ids: list[Any]) -> list[dict[str, Any]]:
        await asyncio.sleep(LOOK_SECONDS)
        return [{"run_id": run_id, "last_seq": 1, "finished": False} for run_id in run_ids]


@pytest.mark.parametrize(
    ("took", "rest"), [(0.0, REST_SECONDS), (0.001, REST_SECONDS), (0.05, 0.2), (5.0, POLL_SECONDS)]
)
def test_the_rest_is_in_proportion_to_the_look_and_bounded(took: float, rest: float):
    assert rest_seconds(took) == rest


async def test_the_rest_follows_what_the_look_took(monkeypatch: pytest.MonkeyPatch):
    took = list[float]()

    def rest(seconds: float) -> float:
        took.append(seconds)
        return 0.0

    monkeypatch.setattr(waker_module, "rest_seconds", rest)
    waker = Waker(cast("Any", SlowPool()), lambda _: None)
    running, waiting = asyncio.create_task(waker.run()), asyncio.create_task(waker.wait(new_run_id(), 1, 60))
    await eventually(lambda: max(took, default=0) >= LOOK_SECONDS, 10, "a rest after a look")
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
