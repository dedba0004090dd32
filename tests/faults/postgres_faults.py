"""Postgres that restarts, dies, throws everybody out, is full; and one run whose row is locked."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg
from deployment import Deployment

from juinie.torture.schedule import Fault

AREA = "postgres"
_TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name <> 'faults'
"""
_LOCK = "SELECT 1 FROM run WHERE run_id = $1 FOR UPDATE"
_TAKE_AGAIN_SECONDS = 0.2


def postgres_faults(deployment: Deployment, a_run: Callable[[], str | None]) -> list[Fault]:
    """`a_run` gives a run that is written to now."""
    postgres = deployment.postgres

    async def stop() -> None:
        await deployment.aside(postgres.stop)

    async def kill() -> None:
        await deployment.aside(postgres.kill)

    async def start() -> None:
        await deployment.aside(postgres.start)

    async def terminate() -> None:
        connection = await _connect(deployment)
        await connection.execute(_TERMINATE)
        await connection.close()

    full, locked = _Full(deployment), _Locked(deployment, a_run)
    return [
        Fault("postgres restarted", AREA, stop, start, (0.2, 3.0)),
        Fault("postgres killed", AREA, kill, start, (0.2, 3.0)),
        Fault("postgres: all sessions terminated", AREA, terminate, seconds=(0.0, 1.0)),
        Fault("postgres: no connection left", AREA, full.inject, full.heal, (3.0, 8.0)),
        Fault("postgres: a run's row locked", AREA, locked.inject, locked.heal, (3.0, 12.0)),
    ]


class _Full:
    """Takes every connection that there is, and whatever becomes free."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._held: list[Any] = []
        self._taking: asyncio.Task[None] | None = None

    async def inject(self) -> None:
        self._taking = asyncio.create_task(self._take())

    async def heal(self) -> None:
        if self._taking:
            self._taking.cancel()
            await asyncio.gather(self._taking, return_exceptions=True)
        for connection in self._held:
            connection.terminate()
        self._held.clear()

    async def _take(self) -> None:
        """Fill up, throw the services out once, and be faster than they are."""
        await self._fill()
        with suppress(asyncpg.PostgresError):
            await self._held[-1].execute(_TERMINATE)
        while True:
            await self._fill()
            await asyncio.sleep(_TAKE_AGAIN_SECONDS)

    async def _fill(self) -> None:
        with suppress(asyncpg.TooManyConnectionsError, OSError):
            while True:
                self._held.append(await _connect(self._deployment))


class _Locked:
    """Holds one run's row: its writers wait, nobody else does."""

    def __init__(self, deployment: Deployment, a_run: Callable[[], str | None]) -> None:
        self._deployment, self._a_run = deployment, a_run
        self._connection: Any = None

    async def inject(self) -> None:
        run_id = self._a_run()
        if run_id is None:
            return
        self._connection = await _connect(self._deployment)
        await self._connection.execute("BEGIN")
        await self._connection.execute(_LOCK, run_id)

    async def heal(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def _connect(deployment: Deployment) -> Any:
    return await asyncpg.connect(
        deployment.postgres.url, timeout=5, server_settings={"application_name": "faults"}
    )
