"""The pools of the api: what holds of all of them."""

import asyncio
from typing import Any

from juinie_api.app import Pools


async def test_all_are_closed_at_once():
    """Each may wait two seconds for a server that is silent, and a stop has ten in all."""
    all_closing = asyncio.Barrier(4)

    class Closing:
        async def close(self) -> None:
            await all_closing.wait()

    pools: list[Any] = [Closing() for _ in range(4)]
    async with asyncio.timeout(10):
        await Pools(*pools).close()
