"""What a torture tells when it could not look everywhere, or something got in its way at the end."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from juinie.client import Client
from juinie.errors import NotFound
from juinie.torture.findings import Kind
from juinie.torture.probe import Probe
from juinie.torture.reconnects import only_reconnects
from juinie.torture.scene import Load, Scene
from juinie.torture.summary import Summary, added_up, faults_of, not_tried
from juinie.torture.torturing import torture
from juinie.torture.waited import NOT_LOOKED_AT

URL = "http://juinie.test"
NOTHING = Load(runs_at_once=0, worked_at_once=0, quiet_at_once=0)
EARLIER = "found before"
LETTER = {"id": 17, "run_id": "r", "first_seq": 3, "last_seq": 3, "reason": "message_too_large", "created_at": "t"}  # fmt: skip


class Deployment:
    """Nobody writes to it. `admin`: its key has that scope. Dead letters are there before, and, once it was asked, more."""

    def __init__(self, admin: bool, *dead_letters: list[dict[str, Any]]) -> None:
        self._admin, self._dead_letters = admin, list(dead_letters)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.startswith("/v1/admin") and not self._admin:
            return httpx.Response(403, json={"code": "forbidden"})
        if path == "/v1/admin/outbox":
            return httpx.Response(200, json={"pending": 0, "oldest_age_seconds": 0.0})
        if path == "/v1/admin/outbox/dead-letters":
            return httpx.Response(200, json={"items": self._dead_letters.pop(0), "next_cursor": None})
        if request.method == "DELETE":
            return httpx.Response(409, json={"code": "run_not_finished"})
        if request.method == "POST":
            run = {"run_id": "r", "status": "pending", "last_seq": 1, "created_at": "t", "token": "t"}
            return httpx.Response(201, json=run)
        return httpx.Response(404)


def scene_of(deployment: Deployment) -> Scene:
    client = Client(URL, URL, "jn_x", transport=httpx.MockTransport(deployment))
    return Scene(client, NOTHING, random.Random(1))


async def tortured(scene: Scene, look_again: Callable[[], Awaitable[None]] | None = None) -> Summary:
    return await torture(scene, [], 1, 0.0, lambda _: None, look_again)


async def test_what_the_key_may_not_see_is_not_looked_at_and_told() -> None:
    probe = Probe(scene_of(Deployment(admin=False)).client)
    await probe.begin()

    assert await probe.until_published(1) == NOT_LOOKED_AT
    assert await probe.until_live(1) == NOT_LOOKED_AT

    found = await tortured(scene_of(Deployment(admin=False)))

    assert [line.split(":")[1].strip() for line in found["left_out"]] == [
        "whether all is published, and dead letters", "whether gateways read Kafka",
    ]  # fmt: skip
    assert found["dead_letters"] == NOT_LOOKED_AT
    assert dict(added_up([found]))["dead letters that came"] == "not looked at, 1 times"


async def test_dead_letter_that_came_is_found_and_one_that_was_there_is_not() -> None:
    earlier = {**LETTER, "id": 4}
    quiet = await tortured(scene_of(Deployment(True, [earlier], [earlier])))
    found = await tortured(scene_of(Deployment(True, [earlier], [LETTER, earlier])))

    assert (quiet["dead_letters"], faults_of(quiet)) == (0, [])
    assert found["dead_letters"] == 1
    assert "dead letters" in str(faults_of(found))


@pytest.mark.parametrize("error", [NotFound(404, "run_not_found", "", {}), OSError("cut"), KeyError("seq")])
async def test_what_gets_in_the_way_is_told_beside_what_was_found(error: Exception) -> None:
    scene = scene_of(Deployment(False))
    scene.checker.findings.add(Kind.LOST, "r", "w", 1, EARLIER)

    async def fail() -> None:
        raise error

    found = await tortured(scene, fail)

    assert EARLIER in found["first_violations"][0]
    assert type(error).__name__ in found["broken_off"]
    assert any(type(error).__name__ in line for line in not_tried(found))


async def test_reconnects_that_cannot_go_on_tell_what_was_found() -> None:
    scene = scene_of(Deployment(False))
    scene.checker.findings.add(Kind.LOST, "r", "w", 1, EARLIER)
    found = await only_reconnects(scene, 3, 1)

    assert EARLIER in found["first_violations"][0]
    assert found["broken_off"]
