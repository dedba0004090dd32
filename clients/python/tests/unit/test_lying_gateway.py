"""The torture's own eyes: a gateway on a socket that tells one lie at a time, seen by a real watcher over real connections."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from juinie.client import Client
from juinie.torture.findings import Kind
from juinie.torture.reconnects import Reconnect
from juinie.torture.scene import Load, Scene
from juinie.torture.watcher import TortureWatcher
from juinie_testkit.lying_gateway import (
    CUT,
    LAST,
    NO_CONTENT,
    NOT_FOUND,
    RUN,
    Frames,
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


async def watched(*connections: Frames) -> tuple[set[Kind], dict[str, int]]:
    """What a watcher finds who sees the run to its end, and which answers were wrong."""
    async with gateway(*connections) as scene, asyncio.timeout(20):
        checker = scene.checker
        checker.send(RUN, "a", [b'torture {"n":%d}' % seq for seq in range(2, LAST)])
        checker.acknowledge(RUN, "a", 2, LAST - 1, scene.now())
        checker.finish(RUN, LAST, scene.now())
        checker.end_as(RUN, "finish", "success")
        await TortureWatcher(scene, RUN, "w").watch()
        checker.conclude(RUN)
        return set(checker.findings.counts), dict(scene.figures.wrong_answers)


@pytest.mark.parametrize(
    "connections",
    [
        [[*log(1, 2, 3, 4, 5), end()]],
        [[*log(1, 2), CUT], [*log(3), CUT], [*log(4, 5), end()]],
        [[*log(1, 2, 3, 4, 5), CUT], NO_CONTENT],
        [[*log(1, 2, 3, 4, 5), caught_up(5), end()]],
    ],
    ids=["at once", "with drops", "204 after the last event", "caught up"],
)
async def test_honest_gateway_is_believed(connections: list[list[bytes]]) -> None:
    assert await watched(*connections) == (set(), {})


@pytest.mark.parametrize(
    ("kind", "connections"),
    [
        (Kind.LOST, [[*log(1, 2, 4, 5), end()]]),
        (Kind.LOST, [[*log(1, 2, 3), CUT], [*log(5), end()]]),
        (Kind.LOST, [[*log(1, 2), b'event: stream.reset\ndata: {"last_seq":1}\n\n', *log(1, 2, 3, 4, 5), end()]]),
        (Kind.REPEATED, [[*log(1, 2, 2, 3, 4, 5), end()]]),
        (Kind.REPEATED, [[*log(1, 2, 3), CUT], [*log(3, 4, 5), end()]]),
        (Kind.REORDERED, [[*log(1, 3, 2, 4, 5), end()]]),
        (Kind.CORRUPT, [[*log(1, 2), event(3, data=b'{"n":33}'), *log(4, 5), end()]]),
        (Kind.END_MISSING, [log(1, 2), [*log(3, 4, 5), end()]]),
        (Kind.END_MISSING, [[*log(1, 2, 3, 4), end(4)]]),
        (Kind.AFTER_END, [[*log(1, 2, 3, 4, 5), end(), event(6)]]),
        (Kind.WRONG_POSITION, [[event(1), event(2, position=4), CUT], [*log(5), end()]]),
        (Kind.WRONG_POSITION, [[*log(1, 2), b"id: 4\n\n", CUT], [*log(5), end()]]),
        (Kind.WRONG_POSITION, [[event(1, position=None), CUT], [*log(1, 2, 3, 4, 5), end()]]),
        (Kind.WRONG_POSITION, [[*log(1, 2), caught_up(3), *log(3, 4, 5), end()]]),
        (Kind.STALE_READ, [[*log(1, 2), caught_up(2), *log(3, 4, 5), end()]]),
        (Kind.WRONG_STATUS, [[*log(1, 2, 3, 4, 5), end(status="error")]]),
        (Kind.WRONG_STATUS, [[*log(1, 2, 3, 4), event(5, data=b'{"status":"error"}'), end()]]),
    ],
    ids=[
        "a gap", "a gap over a drop", "a reset", "twice", "again after a drop", "out of order", "other bytes",
        "a clean end without stream.end", "an early end", "an event after the end", "an id ahead", "an id alone, ahead",
        "no id", "caught up with more than it has", "caught up too early", "another status at the end", "another status in the last event",
    ],
)  # fmt: skip
async def test_lie_is_seen(kind: Kind, connections: list[list[bytes]]) -> None:
    found, _ = await watched(*connections)

    assert kind in found


@pytest.mark.parametrize("frames", [[b"id: 100\n\n", CUT], [b"id: 100\n\n"]], ids=["cut", "a clean end"])
async def test_reconnect_is_answered_by_events_and_by_no_id(frames: list[bytes]) -> None:
    async with gateway(frames) as scene:
        reconnect = Reconnect(scene, RUN, 100, finished=False, name="r")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reconnect.go()

    assert Kind.WRONG_POSITION in scene.checker.findings.counts


async def test_reconnect_that_skips_an_event_is_found() -> None:
    async with gateway([event(seq, data=b"0") for seq in range(90, 120)]) as scene, asyncio.timeout(10):
        scene.chance.randint = lambda a, b: a if b < 100 else 50
        await Reconnect(scene, RUN, 100, finished=False, name="r").go()

    assert Kind.LOST in scene.checker.findings.counts


async def test_run_that_nobody_deleted_is_there() -> None:
    _, wrong = await watched([*log(1, 2), CUT], NOT_FOUND, [*log(3, 4, 5), end()])

    assert wrong == {"stream: 404 run_not_found": 1}
