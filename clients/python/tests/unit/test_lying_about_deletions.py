"""A watcher of a run that was deleted sees through a gateway that goes on, or says nothing."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from juinie.client import Client
from juinie.torture.findings import Kind
from juinie.torture.scene import Load, Scene
from juinie.torture.watcher import TortureWatcher
from juinie.torture.watching import watched
from juinie_testkit.lying_gateway import (
    CUT,
    LAST,
    NO_CONTENT,
    NOT_FOUND,
    OPEN,
    RUN,
    Frames,
    caught_up,
    end,
    in_turn,
    log,
    lying_gateway,
    sent_away,
)


@asynccontextmanager
async def gateway(*connections: Frames) -> AsyncGenerator[Scene]:
    async with lying_gateway(in_turn(*connections)) as url, Client(url, url, "jn_x") as client:
        yield Scene(client, Load(), random.Random(3))


GONE = sent_away("deleted")


async def deleted(
    *connections: Frames, answered: bool = False, end_seconds: float = 5
) -> tuple[set[Kind], dict[str, int]]:
    """What is found by a watcher of a run that has ended, and whose DELETE was sent before, and perhaps answered."""
    async with gateway(*connections) as scene, asyncio.timeout(20):
        checker = scene.checker
        checker.send(RUN, "a", [b'torture {"n":%d}' % seq for seq in range(2, LAST)])
        checker.acknowledge(RUN, "a", 2, LAST - 1, scene.now())
        checker.finish(RUN, LAST, scene.now())
        checker.delete(RUN)
        if answered:
            checker.gone(RUN, scene.now() - 1)
        async with watched([TortureWatcher(scene, RUN, "w")], end_seconds):
            pass
        checker.gone(RUN, scene.now())
        scene.conclude(RUN, 0.0)
        assert [run.run_id for run in scene.deleted] == [RUN]
        return set(checker.findings.counts), dict(scene.figures.wrong_answers)


@pytest.mark.parametrize(
    ("answered", "connections"),
    [
        (True, [NOT_FOUND]),
        (True, [GONE, NOT_FOUND]),
        (False, [NOT_FOUND]),
        (False, [[*log(1, 2), *GONE], NOT_FOUND]),
        (False, [[*log(1, 2, 3, 4, 5), end()]]),
        (False, [[*log(1, 2, 3, 4, 5), CUT], NO_CONTENT]),
    ],
    ids=[
        "404",
        "not now, then 404",
        "before the answer",
        "in the middle",
        "the end came before",
        "204 came before",
    ],
)
async def test_watcher_of_a_deleted_run_is_sent_away_or_has_the_end(
    answered: bool, connections: list[list[bytes]]
) -> None:
    assert await deleted(*connections, answered=answered) == (set(), {})


@pytest.mark.parametrize(
    ("kind", "answered", "connections"),
    [
        (Kind.DELETED, True, [[*log(1, 2), *GONE], NOT_FOUND]),
        (Kind.DELETED, True, [[*log(1, 2, 3, 4, 5), end()]]),
        (Kind.DELETED, True, [[caught_up(0), *GONE], NOT_FOUND]),
        (Kind.DELETED, True, [NO_CONTENT]),
        (Kind.END_MISSING, False, [[*log(1, 2), OPEN]]),
        (Kind.END_MISSING, False, [log(1, 2), NOT_FOUND]),
        (Kind.LOST, False, [[*log(1, 3), *GONE], NOT_FOUND]),
        (Kind.REPEATED, False, [[*log(1, 2, 2), *GONE], NOT_FOUND]),
    ],
    ids=[
        "still served", "served to its end", "its last seq", "204", "a watcher that is never told", "a clean end", "a gap before",
        "twice before",
    ],
)  # fmt: skip
async def test_lie_about_a_deleted_run_is_seen(
    kind: Kind, answered: bool, connections: list[list[bytes]]
) -> None:
    found, _ = await deleted(*connections, answered=answered, end_seconds=0.5)

    assert kind in found
