"""A watcher with a stream token sees through a gateway that does not look at it."""

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from juinie.client import Client
from juinie.torture import tokens
from juinie.torture.findings import Kind
from juinie.torture.scene import Load, Scene
from juinie.torture.tokens import TokenWatcher
from juinie_testkit.lying_gateway import (
    CUT,
    NO_CONTENT,
    NOT_FOUND,
    OPEN,
    RUN,
    UNAUTHENTICATED,
    Frames,
    alone,
    caught_up,
    end,
    in_turn,
    log,
    lying_gateway,
    sent_away,
)

OTHER_RUN = "0193a1b2-0000-7000-8000-000000000002"
SENT_AWAY = [*log(1, 2), *sent_away("credential")]


@asynccontextmanager
async def gateway_with_tokens(
    *connections: Frames, elsewhere: Frames = NOT_FOUND
) -> AsyncGenerator[tuple[Scene, list[str]]]:
    """Makes tokens, t1 and so on; the other run's stream is `elsewhere`. Collects which token came with which request."""
    stream, made, used = in_turn(*connections), itertools.count(1), list[str]()

    def answer(head: str) -> Frames:
        if head.startswith("POST"):
            return [b"201 Created", b'{"token":"t%d"}' % next(made)]
        if "authorization:" in head.lower():
            return UNAUTHENTICATED
        if OTHER_RUN in head:
            return elsewhere
        used.append(head.partition("token=")[2].partition(" ")[0])
        return stream(head)

    async with lying_gateway(answer) as url, Client(url, url, "jn_x") as client:
        yield Scene(client, Load(), random.Random(3)), used


async def with_token(
    *connections: Frames, careful: bool = True, elsewhere: Frames = NOT_FOUND
) -> tuple[Scene, list[str]]:
    """A watcher with a token, to the end of the run, and which tokens it came with."""
    async with (
        gateway_with_tokens(*connections, elsewhere=elsewhere) as (scene, used),
        asyncio.timeout(20),
    ):
        scene.open_runs = {RUN, OTHER_RUN}
        await TokenWatcher(scene, RUN, "w", careful).watch()
        return scene, used


async def test_token_that_is_good_is_used_in_place_of_the_key() -> None:
    scene, used = await with_token([*log(1, 2), CUT], [*log(3, 4, 5), end()])

    assert used == ["t1", "t1"]
    assert (scene.checker.findings.counts, scene.figures.wrong_answers) == ({}, {})
    assert scene.figures.watchers == {"token": 1}


async def test_token_is_renewed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By leaving a connection that would go on."""
    monkeypatch.setattr(tokens, "RENEWED_SECONDS", 0.1)
    scene, used = await with_token([*log(1, 2), OPEN], [*log(3, 4, 5), end()])

    assert used == ["t1", "t2"]
    assert (scene.checker.findings.counts, scene.figures.wrong_answers) == ({}, {})


async def test_token_that_expired_is_refused_and_another_one_asked_for() -> None:
    scene, used = await with_token(SENT_AWAY, UNAUTHENTICATED, [*log(3, 4, 5), end()], careful=False)

    assert used == ["t1", "t1", "t2"]
    assert (scene.checker.findings.counts, scene.figures.wrong_answers) == ({}, {})
    assert scene.figures.tokens_expired == 1


async def test_token_that_is_refused_while_it_is_good_is_a_wrong_answer() -> None:
    scene, _ = await with_token([*log(1, 2), CUT], UNAUTHENTICATED, [*log(3, 4, 5), end()])

    assert scene.figures.wrong_answers == {"stream: 401 not_authenticated": 1}


async def test_stream_that_flows_long_after_its_token_expired_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "LEEWAY_SECONDS", -1.0)
    monkeypatch.setattr(tokens, "OVERSTAYS_SECONDS", 0.0)
    scene, _ = await with_token([*log(1, 2), CUT], [*log(3, 4, 5), end()], careful=False)

    assert set(scene.checker.findings.counts) == {Kind.TRESPASS}


@pytest.mark.parametrize(
    ("elsewhere", "kinds"),
    [
        (NOT_FOUND, set[Kind]()), (sent_away("draining"), set[Kind]()), ([*log(1, 2), CUT], {Kind.TRESPASS}), ([alone(3), CUT], {Kind.TRESPASS}),
        ([caught_up(3), CUT], {Kind.TRESPASS}), (NO_CONTENT, {Kind.TRESPASS}),
    ],
    ids=["404", "not now", "its events", "its position", "its last seq", "that it has ended"],
)  # fmt: skip
async def test_token_that_opens_another_run_is_found(
    monkeypatch: pytest.MonkeyPatch, elsewhere: list[bytes], kinds: set[Kind]
) -> None:
    monkeypatch.setattr(tokens, "_ELSEWHERE", 1.0)
    scene, _ = await with_token([*log(1, 2, 3, 4, 5), end()], elsewhere=elsewhere)

    assert set(scene.checker.findings.counts) == kinds
    assert scene.figures.wrong_answers == {}
