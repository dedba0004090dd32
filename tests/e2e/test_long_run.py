"""A run of two hundred thousand events, and one of none: streamed and read whole by services that do not grow with it."""

from pathlib import Path

import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.raw_stream import raw_stream
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import ServiceProcess, Stack
from juinie_testkit.waits import await_stream_completion
from juinie_testkit.watcher import Watcher

EVENTS = 200_000
DATA_BYTES = 300
MOST_GROWTH = 32 * 1024 * 1024
"""Of a process while 60 MB of events go through it: pages, a buffer and the allocator's slack, and no more."""

FILL = """
    INSERT INTO run_event (run_id, seq, type, data, occurred_at)
    SELECT $1, n, 'token', to_json(repeat('x', $3))::text, clock_timestamp() FROM generate_series(2, $2) AS n
"""
ADVANCE = "UPDATE run SET last_seq = $2 WHERE run_id = $1"

pytestmark = pytest.mark.timeout(500)


def memory(service: ServiceProcess) -> int:
    """The most that it has ever held, in bytes."""
    status = Path(f"/proc/{service.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def make_long(pool: Pool, key: SeededKey) -> str:
    """A finished run, without outbox rows for its events: it is read from Postgres alone."""
    run_id = await Seed(pool).run(key)
    async with pool.transaction() as connection:
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute(FILL, run_id, EVENTS, DATA_BYTES, timeout=300)
        await connection.execute(ADVANCE, run_id, EVENTS)
    await Seed(pool).finish(run_id)
    return str(run_id)


async def test_long_run_is_streamed_and_read_whole_and_no_service_grows_with_it(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    warm = str(await Seed(stack_pool).run(key, status="success"))
    await read_stream(stack, warm, key)
    await api.events(warm)
    run_id = await make_long(stack_pool, key)
    before = memory(stack.gateway), memory(stack.api)

    received = await read_stream(stack, run_id, key)
    seqs, after_seq = 0, 0
    while page := await api.events(run_id, after_seq=after_seq):
        assert page[0]["seq"] == after_seq + 1
        seqs, after_seq = seqs + len(page), page[-1]["seq"]

    grown = memory(stack.gateway) - before[0], memory(stack.api) - before[1]
    print(
        f"{received / 2**20:.0f} MiB streamed; gateway and api grew by {[size >> 20 for size in grown]} MiB"
    )
    assert seqs == after_seq == EVENTS + 1
    assert received > EVENTS * DATA_BYTES
    assert max(grown) < MOST_GROWTH


async def read_stream(stack: Stack, run_id: str, key: SeededKey) -> int:
    """Read a finished run's stream to its end, and keep nothing: how many bytes, each event's id in its turn."""
    size, seq, rest = 0, 0, b""
    async with raw_stream(stack.gateway.port, run_id, key.text) as stream:
        while b"event: stream.end" not in stream.received:
            data = await stream.read()
            assert data, "the connection ended before the run"
            size += len(data)
            stream.received = stream.received[-4096:]
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"id: "):
                    assert int(line[4:]) == seq + 1
                    seq += 1
    return size


async def test_run_of_no_events_is_its_creation_and_its_end(stack: Stack, api: ApiClient, key: SeededKey):
    run_id = (await api.create())["run_id"]
    await api.finish(run_id, "error", error={"message": "nothing was done"})
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await await_stream_completion(watcher)
    types = [frame.json["type"] for frame in watcher.events]
    assert (types[0], types[-1]) == ("run.created", "run.finished")
    assert "stream.caught_up" in [frame.event for frame in watcher.controls]
