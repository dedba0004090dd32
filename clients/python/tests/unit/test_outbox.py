"""Published is what was written before one began to wait; a publisher that relays nothing is found out."""

from typing import Any

import httpx

from juinie.client import Client
from juinie.torture.outbox import Outbox


def outbox(*answers: httpx.Response) -> Outbox:
    """One whose API gives these, and the last of them for ever."""
    coming = list(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        return coming.pop(0) if len(coming) > 1 else coming[0]

    return Outbox(
        Client("http://juinie.test", "http://juinie.test", "jn_x", transport=httpx.MockTransport(answer))
    )


def depth(pending: int, oldest_age_seconds: float) -> httpx.Response:
    shown: dict[str, Any] = {"pending": pending, "oldest_age_seconds": oldest_age_seconds}
    return httpx.Response(200, json=shown)


async def test_what_was_written_before_has_to_be_gone() -> None:
    assert await outbox(depth(9, 100.0), httpx.Response(503), depth(0, 0.0)).until_published(20) is not None


async def test_what_is_written_meanwhile_is_not_waited_for() -> None:
    assert await outbox(depth(9, 100.0), depth(3, 0.01)).until_published(20) is not None


async def test_outbox_that_only_grows_older_is_never_published() -> None:
    assert await outbox(depth(9, 100.0)).until_published(0.5) is None


async def test_key_of_another_scope_may_not_look() -> None:
    assert await outbox(depth(0, 0.0)).may_look()
    assert not await outbox(httpx.Response(503), httpx.Response(403)).may_look()
