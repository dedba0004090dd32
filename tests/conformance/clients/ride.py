"""A run that is written while a client watches it, and the places at which its connection is cut."""

import asyncio
from collections.abc import Callable
from typing import Any

from .client_log import ClientLog
from .cutting_proxy import CuttingProxy


def in_its_data(seq: int) -> bytes:
    return b'{"seq":%d,' % seq


def between_data_and_id(seq: int) -> bytes:
    return b'"mark":%d}}\n' % seq


def among_the_digits_of_its_id(seq: int) -> bytes:
    return b"\nid: " + str(seq).encode()[:-1]


def before_its_last_line(seq: int) -> bytes:
    return b"\nid: %d\n" % seq


CUTS = (in_its_data, between_data_and_id, among_the_digits_of_its_id, before_its_last_line)


class Ride:
    """A run that is written while a client watches it through the proxy."""

    def __init__(self, api: Any, proxy: CuttingProxy, run_id: str) -> None:
        self._api, self._proxy, self.run_id = api, proxy, run_id
        self.last_seq = 1

    async def steps(self, count: int) -> None:
        """Append so many events; each carries the seq that it will have."""
        for _ in range(count):
            mark = {"mark": self.last_seq + 1}
            self.last_seq = await self._api.add(self.run_id, ("STEP", mark))

    async def cut(self, client: ClientLog, place: Callable[[int], bytes], *, reset: bool = False) -> None:
        """Cut the connection within the next event, write on while the client is away, and see it return."""
        cut = self._proxy.cut_behind(place(self.last_seq + 1), reset=reset)
        await self.steps(1)
        await asyncio.wait_for(cut, 30)
        await self.steps(3)
        await client.until_seq(self.last_seq)
