"""What a service leaves behind in the process that ran it: tasks, sockets, threads, children, database sessions.

Counted from outside the service, before and after: `async with nothing_left(database_url): …`.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from juinie_shared.db.pool import Connection, connect
from juinie_testkit.waits import eventually

_SESSIONS = """
    SELECT array_agg(application_name ORDER BY application_name) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'juinie-%' AND pid <> pg_backend_pid()
"""
_LOOPS_OWN = "asyncio_"
"""Threads of the event loop's executor, which outlive what ran in them."""
_SOON_SECONDS = 5
"""A socket that was closed is gone a turn of the loop later, a session when Postgres has noticed."""


@asynccontextmanager
async def nothing_left(database_url: str) -> AsyncGenerator[None]:
    """What runs inside leaves nothing. `database_url`: where its sessions would be; reached past any proxy.

    Raises:
        StillMissing: something is still there; the message has what.
    """
    watching = await connect(database_url, "leftovers")
    try:
        before = await _count(watching)
        yield

        async def same() -> bool:
            return not await left()

        async def left() -> list[str]:
            after = await _count(watching)
            return [
                f"{kind}: {sorted(after[kind] - before[kind])}"
                for kind in before
                if after[kind] - before[kind]
            ]

        try:
            await eventually(same, _SOON_SECONDS, "gone")
        except AssertionError as error:
            raise type(error)(f"Left behind: {'; '.join(await left())}") from None
    finally:
        await watching.close()


async def _count(watching: Connection) -> dict[str, set[str]]:
    return {
        "tasks": {f"{task.get_name()} {task.get_coro()}" for task in asyncio.all_tasks()},
        "sockets": _sockets(),
        "threads": {
            thread.name for thread in threading.enumerate() if not thread.name.startswith(_LOOPS_OWN)
        },
        "children": _children(),
        "sessions": set(await watching.fetchval(_SESSIONS) or ()),
    }


def _sockets() -> set[str]:
    found: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:  # the directory's own, gone since
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
