"""Two at a time for each run: whoever else waits for a run's row waits here, and holds no connection meanwhile.

Writes to one run queue for its row lock anyway; the second is there for when the first lets go. Without this, a run
whose row stays locked would take one connection after the other from the pool, until no other run finds any.

A lane is of a tenant and a run: who asks for a run of somebody else's, which nobody has looked up yet, is in nobody's way.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from juinie_api.core import patience
from juinie_shared.domain.errors import RunLocked
from juinie_shared.domain.ids import RunId, TenantId

WIDTH = 2


class Turn:
    """One's turn at a run, and the time that is left for what it is needed for."""

    def __init__(self, wait_seconds: float) -> None:
        self._until = time.monotonic() + wait_seconds

    def seconds_left(self) -> float:
        """0 when it is over."""
        return max(0.0, self._until - time.monotonic())


class RunLanes:
    """`async with lanes.turn(tenant_id, run_id)` around what takes the run's row lock."""

    def __init__(self, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._lanes: dict[tuple[TenantId, RunId], _Lane] = {}

    @asynccontextmanager
    async def turn(self, tenant_id: TenantId, run_id: RunId) -> AsyncGenerator[Turn]:
        """First come, first served. `wait_seconds` are for this and for what is waited for next, less what the request has waited before.

        Raises:
            RunLocked: the turn did not come in time.
        """
        key = tenant_id, run_id
        lane = self._lanes.setdefault(key, _Lane())
        lane.users += 1
        turn = Turn(min(self._wait_seconds, patience.seconds_for_turns()))
        try:
            try:
                async with asyncio.timeout(turn.seconds_left()):
                    await lane.room.acquire()
            except TimeoutError as error:
                raise RunLocked from error
            try:
                yield turn
            finally:
                lane.room.release()
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[key]


class _Lane:
    def __init__(self) -> None:
        self.room = asyncio.Semaphore(WIDTH)
        self.users = 0
