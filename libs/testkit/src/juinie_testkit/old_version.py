"""The version with schema 0001, in what it does to the database: it goes on while the schema under it changes.

Nothing is tried twice: whatever fails is a request that failed.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from juinie_shared.db.pool import Pool, Row
from juinie_shared.domain.ids import SHARDS, RunId, TenantId, new_run_id, shard_of
from juinie_testkit import old_statements as old

APPENDS_PER_RUN = 5
_TENANT = "INSERT INTO tenant (tenant_id, name) VALUES (gen_random_uuid(), 'a') RETURNING tenant_id"


@dataclass(slots=True)
class OldVersion:
    """Writers that make runs, append and read, and a relay. `longest` has the longest wait by kind of request."""

    pool: Pool
    tenant_id: TenantId
    last_seqs: dict[RunId, int] = field(default_factory=dict[RunId, int])
    """Runs that were made, and the last seq that was acknowledged."""
    finished: set[RunId] = field(default_factory=set[RunId])
    relayed: dict[RunId, list[int]] = field(default_factory=lambda: defaultdict[RunId, list[int]](list))
    failures: list[str] = field(default_factory=list[str])
    requests: int = 0
    longest: dict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))

    async def serve(self, stopping: asyncio.Event, writers: int = 4) -> None:
        """Go on until `stopping` is set; half of the runs are left open."""
        tasks = [self._write(stopping, finish=bool(number % 2)) for number in range(writers)]
        await asyncio.gather(*tasks, self._relay(stopping))

    async def create(self, run_id: RunId) -> None:
        await self._ask(
            "create", old.CREATE, run_id, self.tenant_id, shard_of(run_id), "agent", None, None, "{}", b"",
            3600, 86400.0, '{"agent":"agent"}', None, None,
        )  # fmt: skip
        self.last_seqs[run_id] = 1

    async def append(self, run_id: RunId, types: Sequence[str], status: str | None = None) -> None:
        rows = await self._ask(
            "append", old.APPEND, run_id, self.tenant_id, None, True, list(types), ["1"] * len(types),
            [None] * len(types), status, None, None, False, 1, None, None, None, None,
        )  # fmt: skip
        for row in rows:
            self.last_seqs[run_id] = row["last_seq"]

    async def finish(self, run_id: RunId) -> None:
        await self.append(run_id, ["run.finished"], "success")
        self.finished.add(run_id)

    async def read(self, run_id: RunId) -> list[int]:
        """The seqs of all its events, as a watcher gets them who comes now."""
        head = await self._ask("read", old.READ_HEAD, run_id, self.tenant_id)
        last = head[0]["last_seq"] if head else 0
        return [
            row["seq"] for row in await self._ask("read", old.READ_EVENTS, run_id, 0, last, None, 500, 65536)
        ]

    async def relay(self) -> int:
        """One window. Gives how many rows it took."""
        rows = await self._ask("relay", old.FETCH, list(range(SHARDS)), 64, 500, 4_000_000)
        for row in rows:
            self.relayed[RunId(row["run_id"])] += row["seqs"] or []
        await self._ask("relay", old.DELETE, [row["id"] for row in rows])
        return len(rows)

    async def _write(self, stopping: asyncio.Event, finish: bool) -> None:
        while not stopping.is_set():
            run_id = new_run_id()
            await self.create(run_id)
            for _ in range(APPENDS_PER_RUN):
                await self.append(run_id, ["x"])
            if finish:
                await self.finish(run_id)
            if (seen := await self.read(run_id)) != list(range(1, self.last_seqs[run_id] + 1)):
                self.failures.append(f"read of {run_id}: {seen}")

    async def _relay(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await self.relay()

    async def _ask(self, kind: str, statement: str, *args: object) -> Sequence[Row]:
        self.requests += 1
        began = time.monotonic()
        try:
            async with self.pool.connection() as connection:
                return await connection.fetch(statement, *args)
        except Exception as error:  # noqa: BLE001 - whatever it is, a client would have seen it
            self.failures.append(f"{kind}: {error!r}")
            return []
        finally:
            self.longest[kind] = max(self.longest[kind], time.monotonic() - began)


async def old_version(pool: Pool) -> OldVersion:
    """It, with a tenant of its own."""
    async with pool.connection() as connection:
        return OldVersion(pool, TenantId(await connection.fetchval(_TENANT)))
