"""The relay under concurrent writers and several relays, beside two designs that look right and are not.

The load is made so that each wrong design fails: writers hold their transaction open after taking their outbox id,
so ids become visible out of order, and every batch takes a while of its own to arrive, so relays overtake each
other. The controls have to fail under it, or the load proves nothing about the real one.
"""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.relay import Relay
from juinie_publisher.store.dead_letters import DeadLetterStore
from juinie_publisher.store.outbox import OutboxStore, WindowLimits
from juinie_shared.db.pool import PoolLimits, open_pool
from juinie_shared.domain.ids import RunId
from juinie_testkit.seed import Seed

RELAYS = 3
WRITERS = 6
RUNS = 4
APPENDS = 40
MOST_ROUNDS = 20
"""Of load, until a control fails. Each fails in the first or second."""

LOCK_AND_TAKE_ID = """
    WITH taken AS (UPDATE run SET last_seq = last_seq + 1 WHERE run_id = $1 RETURNING run_id, shard, last_seq),
    event AS (INSERT INTO run_event (run_id, seq, type, data) SELECT run_id, last_seq, 'token', 'null' FROM taken)
    INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes) SELECT shard, run_id, last_seq, last_seq, 4 FROM taken
"""


@dataclass
class Log:
    """What arrived, in order; an arrival takes a random moment."""

    arrived: list[tuple[RunId, int]] = field(default_factory=list)

    async def arrive(self, *seqs):
        await asyncio.sleep(random.uniform(0, 0.01))
        self.arrived += seqs

    def out_of_order(self):
        """First occurrences that came before one of a lower seq."""
        highest, wrong = {}, 0
        for run, seq in self.arrived:
            if seq > highest.get(run, 0) + 1:
                wrong += 1
            highest[run] = max(highest.get(run, 0), seq)
        return wrong

    def lost(self, committed):
        return sum(committed.values()) - len(set(self.arrived))


class RightDesign:
    """The relay itself."""

    def __init__(self, pool, log, told):
        limits = WindowLimits(rows=8, rows_a_shard=4)
        self._relay = Relay(
            OutboxStore(pool), DeadLetterStore(pool), _TopicTo(log), Doorbell(), told.telemetry, limits
        )

    async def round(self):
        await self._relay.round()


class SkipLocked:
    """Control: several relays share the outbox by `FOR UPDATE SKIP LOCKED`, each row sent by one of them only.

    What one relay skips, since the other holds its run's older rows, it takes the newer rows of.
    """

    TAKE = "SELECT id, run_id, first_seq FROM outbox ORDER BY id LIMIT 4 FOR UPDATE SKIP LOCKED"

    def __init__(self, pool, log, _told):
        self._pool, self._log = pool, log

    async def round(self):
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(self.TAKE)
            await self._log.arrive(*((row["run_id"], row["first_seq"]) for row in rows))
            await connection.execute("DELETE FROM outbox WHERE id = ANY($1)", [row["id"] for row in rows])


class IdCursor:
    """Control: a relay remembers the last id it sent. A row that commits later with a lower id is never seen."""

    AFTER = "SELECT id, run_id, first_seq FROM outbox WHERE id > $1 ORDER BY id LIMIT 8"

    def __init__(self, pool, log, _told):
        self._pool, self._log, self._last = pool, log, 0

    async def round(self):
        async with self._pool.connection() as connection:
            rows = await connection.fetch(self.AFTER, self._last)
        await self._log.arrive(*((row["run_id"], row["first_seq"]) for row in rows))
        self._last = rows[-1]["id"] if rows else self._last


class _TopicTo:
    """A topic of one partition an arrival at a time, that takes a few records a batch."""

    partitions = 2

    def __init__(self, log):
        self._log = log

    async def connect(self):
        pass

    def partition_of(self, key):
        return key[-1] % 2

    async def send(self, _partition, records, start):
        batch = records[start : start + 3]
        await self._log.arrive(*((record.run_id, record.seq) for record in batch))
        return start + len(batch)


@pytest.fixture
async def wide_pool(database_url):
    pool = await open_pool(database_url, "stress", PoolLimits(size=WRITERS + 2 * RELAYS, acquire_seconds=30))
    yield pool
    await pool.close()


@pytest.fixture
def load(wide_pool, told):
    """Run one round of load over relays of a design. Gives what arrived and what was committed."""

    async def run(design, relays=RELAYS):
        seed, log, written = Seed(wide_pool), Log(), asyncio.Event()
        key = await seed.key()
        runs = [await seed.run(key) for _ in range(RUNS)]

        async def relay():
            mine = design(wide_pool, log, told)
            while not written.is_set():
                await mine.round()
            for _ in range(len(runs) * (APPENDS * WRITERS + 1)):
                before = len(log.arrived)
                await mine.round()
                if len(log.arrived) == before:
                    break

        async with asyncio.TaskGroup() as relaying:
            for _ in range(relays):
                relaying.create_task(relay())
            async with asyncio.TaskGroup() as writing:
                for _ in range(WRITERS):
                    writing.create_task(_write(wide_pool, runs))
            written.set()
        async with wide_pool.connection() as connection:
            rows = await connection.fetch("SELECT run_id, last_seq FROM run WHERE run_id = ANY($1)", runs)
        return log, {row["run_id"]: row["last_seq"] for row in rows}

    return run


async def _write(pool, runs):
    """Appends to random runs that stay open a random moment after their id was taken: the load, not a wait."""
    for _ in range(APPENDS):
        async with pool.transaction() as connection:
            await connection.execute(LOCK_AND_TAKE_ID, random.choice(runs))
            await asyncio.sleep(random.choice([0, 0, 0.002, 0.01]))


async def test_relays_deliver_everything_in_order(load):
    for _ in range(3):
        log, committed = await load(RightDesign)
        assert (log.out_of_order(), log.lost(committed)) == (0, 0)


async def test_control_skip_locked_delivers_out_of_order(load):
    for _ in range(MOST_ROUNDS):
        log, _ = await load(SkipLocked)
        if log.out_of_order():
            return
    pytest.fail("FOR UPDATE SKIP LOCKED kept the order: the load no longer shows what it was made for")


async def test_control_id_cursor_loses_rows(load):
    for _ in range(MOST_ROUNDS):
        log, committed = await load(IdCursor, relays=1)
        if log.lost(committed):
            return
    pytest.fail("A cursor over the id lost nothing: the load no longer shows what it was made for")
