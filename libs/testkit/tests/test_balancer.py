"""The balancer: whom it leaves out at once, and whom only after a while."""

import asyncio
import contextlib

import pytest

from juinie_testkit.balancer import SILENT_PROBES, Balancer, Health

SILENT = [None] * (SILENT_PROBES - 1)


@pytest.mark.parametrize(
    ("said", "ready"),
    [
        ([], False),
        ([None], False),
        ([True], True),
        ([True, False], False),
        ([True, *SILENT], True),
        ([True, *SILENT, None], False),
        ([True, *SILENT, True, *SILENT], True),
        ([True, *SILENT, None, None], False),
        ([True, False, None], False),
        ([True, *SILENT, None, True], True),
    ],
)
def test_what_the_probes_said_makes_a_replica_ready_or_not(said: list[bool | None], *, ready: bool):
    health = Health()
    after = [False, *(health.ready_after(each) for each in said)]
    assert after[-1] is ready


async def test_a_connection_that_nobody_is_ready_for_is_closed_and_counted():
    async with Balancer(["http://127.0.0.1:9"]) as balancer:
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert balancer.refused == 1
        assert not balancer.taken
