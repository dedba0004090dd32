"""A watcher that asks for some types sees through a gateway that gives others, or too few."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from juinie.client import Client
from juinie.events import RunEvent
from juinie.torture.findings import Kind
from juinie.torture.scene import Load, Scene
from juinie.torture.watcher import FilterWatcher, show
from juinie_testkit.lying_gateway import (
    CUT,
    LAST,
    NO_CONTENT,
    RUN,
    Frames,
    alone,
    caught_up,
    end,
    event,
    in_turn,
    log,
    lying_gateway,
)


@asynccontextmanager
async def gateway(*connections: Frames) -> AsyncGenerator[Scene]:
    async with lying_gateway(in_turn(*connections)) as url, Client(url, url, "jn_x") as client:
        yield Scene(client, Load(), random.Random(3))


OTHER_TYPE = event(3, kind=b"other")
"""Of the run 1 to 5, the one event that is neither Juinie's nor of the type `torture`."""
WHOLE_RUN = [*log(1, 2), OTHER_TYPE, *log(4, 5)]


def see_all(scene: Scene) -> None:
    """The pages, which have everything."""
    scene.checker.open(RUN, "pages", 0, scene.now())
    for frame in WHOLE_RUN:
        line, _, _ = frame.removeprefix(b"data: ").partition(b"\n")
        show(scene, RUN, "pages", RunEvent.read(line))
    scene.checker.end(RUN, "pages", LAST)


async def filtered(*connections: Frames) -> tuple[set[Kind], dict[str, int]]:
    """What is found by a watcher that asks for the type `torture`."""
    async with gateway(*connections) as scene, asyncio.timeout(20):
        scene.checker.send(RUN, "a", [b'torture {"n":2}', b'other {"n":3}', b'torture {"n":4}'])
        scene.checker.acknowledge(RUN, "a", 2, LAST - 1, scene.now())
        scene.checker.finish(RUN, LAST, scene.now())
        await FilterWatcher(scene, RUN, "w", frozenset({"torture"})).watch()
        see_all(scene)
        scene.checker.conclude(RUN)
        assert scene.figures.watchers == {"types": 1}
        assert {violation.who for violation in scene.checker.findings.kept} <= {"w"}
        return set(scene.checker.findings.counts), dict(scene.figures.wrong_answers)


@pytest.mark.parametrize(
    "connections",
    [
        [[*log(2, 4, 5), caught_up(5), end()]],
        [[*log(2), alone(3), CUT], [*log(4, 5), caught_up(5), end()]],
        [[alone(1), CUT], [*log(2), CUT], [*log(4), CUT], [*log(5), CUT], NO_CONTENT],
    ],
    ids=["at once", "a cursor over what is left out", "drops"],
)
async def test_honest_filter_is_believed(connections: list[list[bytes]]) -> None:
    assert await filtered(*connections) == (set(), {})


@pytest.mark.parametrize(
    ("kind", "connections"),
    [
        (Kind.UNASKED, [[*log(2), OTHER_TYPE, *log(4, 5), end()]]),
        (Kind.LOST, [[*log(2, 5), end()]]),
        (Kind.LOST, [[*log(2), alone(4), CUT], [*log(5), end()]]),
        (Kind.REPEATED, [[*log(2), alone(3), CUT], [*log(2, 4, 5), end()]]),
        (Kind.REORDERED, [[*log(4, 2, 5), end()]]),
        (Kind.REORDERED, [[alone(3), *log(2, 4, 5), end()]]),
        (Kind.WRONG_POSITION, [[*log(2, 4), alone(3), CUT], [*log(5), end()]]),
        (Kind.WRONG_POSITION, [[event(2, position=3), *log(4, 5), end()]]),
        (Kind.WRONG_POSITION, [[*log(2), caught_up(3), *log(4, 5), end()]]),
        (Kind.STALE_READ, [[*log(2), caught_up(2), *log(4, 5), end()]]),
        (Kind.LOST, [[*log(2, 4), end()]]),
        (Kind.END_MISSING, [[*log(2, 4), alone(5), end()]]),
    ],
    ids=[
        "a foreign type", "one dropped", "a cursor over one that was asked for", "again after a drop", "out of order",
        "after the cursor", "a cursor that goes back", "an id ahead", "no cursor before caught_up", "caught up too early",
        "an end too early", "no terminal event",
    ],
)  # fmt: skip
async def test_lie_about_types_is_seen(kind: Kind, connections: list[list[bytes]]) -> None:
    found, _ = await filtered(*connections)

    assert kind in found
