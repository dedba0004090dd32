"""A watcher that begins at the tail sees through a gateway that begins elsewhere."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from juinie.client import Client
from juinie.events import RunEvent
from juinie.torture import tails
from juinie.torture.findings import Kind
from juinie.torture.scene import Load, Scene
from juinie.torture.tails import TailWatcher
from juinie.torture.watcher import show
from juinie_testkit.lying_gateway import (
    CUT,
    LAST,
    NO_CONTENT,
    RUN,
    Frames,
    alone,
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


@pytest.fixture(autouse=True)
def only_the_first_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "_LATEST_SECONDS", 1e6)


async def at_the_tail(*connections: Frames) -> set[Kind]:
    """What is found by a watcher that comes when 3 is acknowledged; 4 is sent when it has been told where the tail is."""
    async with gateway(*connections) as scene, asyncio.timeout(20):
        checker = scene.checker
        checker.send(RUN, "a", [b'torture {"n":2}', b'torture {"n":3}'])
        checker.acknowledge(RUN, "a", 2, 3, scene.now())
        await TailWatcher(scene, RUN, "w").watch()
        checker.send(RUN, "b", [b'torture {"n":4}'])
        checker.acknowledge(RUN, "b", 4, 4, scene.now())
        checker.finish(RUN, LAST, scene.now())
        checker.open(RUN, "pages", 0, scene.now())
        for frame in log(1, 2, 3, 4, 5):
            show(scene, RUN, "pages", RunEvent.read(frame.removeprefix(b"data: ").partition(b"\n")[0]))
        checker.end(RUN, "pages", LAST)
        checker.conclude(RUN)
        return set(checker.findings.counts)


@pytest.mark.parametrize(
    "connections",
    [
        [[alone(3), caught_up(3), *log(4, 5), end()]],
        [[alone(3), caught_up(3), *log(4), CUT], [*log(5), caught_up(5), end()]],
        [[CUT], sent_away("draining"), [alone(3), CUT], [*log(4, 5), end()]],
    ],
    ids=["at once", "a drop", "drops before it was told"],
)
async def test_honest_tail_is_believed(connections: list[list[bytes]]) -> None:
    assert await at_the_tail(*connections) == set()


@pytest.mark.parametrize(
    ("kind", "connections"),
    [
        (Kind.STALE_READ, [[alone(2), *log(3, 4, 5), end()]]),
        (Kind.REPEATED, [[alone(3), *log(3, 4, 5), end()]]),
        (Kind.LOST, [[alone(3), *log(5), end()]]),
        (Kind.LOST, [[alone(4), *log(5), end()]]),
        (Kind.LOST, [NO_CONTENT]),
        (Kind.WRONG_POSITION, [[*log(4, 5), end()]]),
        (Kind.WRONG_POSITION, [[caught_up(3), alone(3), *log(4, 5), end()]]),
        (Kind.WRONG_POSITION, [[alone(3), *log(4), CUT], [alone(5), *log(5), end()]]),
    ],
    ids=[
        "before what was there", "one again", "one too few", "beyond what was there", "nothing comes", "no id at once",
        "no id before caught_up", "again the tail after a drop",
    ],
)  # fmt: skip
async def test_lie_about_the_tail_is_seen(kind: Kind, connections: list[list[bytes]]) -> None:
    assert kind in await at_the_tail(*connections)
