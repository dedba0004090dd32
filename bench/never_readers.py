"""500 clients that ask for a stream and read nothing: what each costs, when it is gone, and what the others feel.

By hand, on a machine that does nothing else, in some three minutes, and six more for the memory that stays:

    pytest -s bench/never_readers.py

The gateway, those that read and those that do not are processes of their own. Phases without and with never-readers take
turns; the figure is the ratio of the readers' p99 latencies, from an append to its frame, within this one run.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.kafka import create_topic
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.raw_stream import RawStream, connect_raw, stream_request
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import Stack

NEVER_READERS = 500
READERS_PER_RUN, RUNS = 8, 5
APPENDS_PER_SECOND = 40
ROUNDS, PHASE_SECONDS = 3, 12
CROWDS = 5
RECENT_BYTES = 2**20
"""Full before the first crowd is gone: what grows after that is not the frames of the runs that go on."""
LONG_RUN_EVENTS, EVENT_BYTES = 2000, 2000
GAP_SECONDS = 0.01
OPEN, UNSENT = "juinie_streams_open", "juinie_stream_unsent_bytes"

pytestmark = pytest.mark.timeout(600)


# ---- the clients, each kind in a process of its own ------------------------------------------------------------------


async def read_and_note(port: int, key: str, run_ids: list[str], notes: Path) -> None:
    """Read streams for ever; note when each event came, and how old it was then."""
    with notes.open("w", buffering=1) as lines:

        async def read(run_id: str) -> None:
            client = await connect_raw(port)
            await client.send(stream_request(run_id, key, "tail"))
            rest = b""
            while data := await client.read():
                now, client.received = time.time(), b""
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    if (at := line.find(b'"sent":')) >= 0:
                        lines.write(f"{now} {now - float(line[at + 7 :].partition(b'}')[0]):.6f}\n")

        await asyncio.gather(*(read(run_id) for run_id in run_ids for _ in range(READERS_PER_RUN)))


async def never_read(port: int, key: str, run_ids: list[str]) -> None:
    """Ask for streams, and read no more than the first bytes of each."""
    clients: list[RawStream] = []
    for number in range(NEVER_READERS):
        client = await connect_raw(port, receive_buffer=4096)
        await client.send(stream_request(run_ids[number % len(run_ids)], key))
        await client.read(500)
        clients.append(client)
        await asyncio.sleep(GAP_SECONDS)
    await asyncio.Event().wait()


# ---- the run ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def client_process(*arguments: object) -> AsyncGenerator[None]:
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, *map(str, arguments))
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def append_for_ever(seed: Seed, runs: list[UUID], long_run: UUID) -> None:
    """Events for those that read, and some that those who do not read never get to."""
    while True:
        await seed.append(long_run, ("text", "goes by"), notify=True)
        for run_id in runs * 4:
            await seed.append(run_id, ("text", {"pad": "x" * 150, "sent": time.time()}), notify=True)
            await asyncio.sleep(1 / APPENDS_PER_SECOND)


def pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def settled(look: Callable[[], object]) -> None:
    """Wait until two looks in a row, a second apart, are about the same."""
    before, now = -1.0, float(await look())  # type: ignore[misc]
    while abs(now - before) > max(before, 1) * 0.02:
        await asyncio.sleep(1)
        before, now = now, float(await look())  # type: ignore[misc]


class Bench:
    """One gateway under test, its readers, and what is found."""

    def __init__(self, stack: Stack, seed: Seed, key: SeededKey, notes: Path) -> None:
        self.stack, self.seed, self.key, self.notes = stack, seed, key, notes
        self.url = stack.gateway.url
        self.port = int(self.url.rpartition(":")[2])
        self.pid = stack.gateway._process.pid  # noqa: SLF001  # type: ignore[union-attr]
        self.runs: list[UUID] = []
        self.pss_before = 0
        self.windows: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}

    async def prepare(self) -> None:
        self.runs = [await self.seed.run(self.key) for _ in range(RUNS)]
        self.long_run = await self.seed.run(self.key)
        for _ in range(LONG_RUN_EVENTS // 100):
            await self.seed.append(self.long_run, *[("text", "x" * EVENT_BYTES) for _ in range(100)])

    def readers(self) -> object:
        return client_process("read", self.port, self.key.text, self.notes, *self.runs)

    def deaf(self) -> object:
        return client_process("never", self.port, self.key.text, self.long_run)

    async def measure(self, phase: str) -> None:
        began, cpu = time.time(), cpu_seconds(self.pid)
        await asyncio.sleep(PHASE_SECONDS)
        self.windows[phase].append((began, time.time()))
        share = (cpu_seconds(self.pid) - cpu) / PHASE_SECONDS
        print(f"  {phase} never-readers: gateway at {share:.0%} of a core")

    def tell_cost(self) -> None:
        """Against the gateway as it was before the first of them came: later it has the memory already."""
        each = (pss_bytes(self.pid) - self.pss_before) / NEVER_READERS / 1024
        print(f"  each never-reader: {each:.0f} KiB of PSS")

    async def all_deaf(self) -> None:
        await until_metric(self.url, OPEN, self.few + NEVER_READERS, 120)
        await settled(lambda: metric(self.url, UNSENT))

    @property
    def few(self) -> int:
        return RUNS * READERS_PER_RUN

    def p99_ms(self, phase: str) -> float:
        late: list[float] = []
        for line in self.notes.read_text().splitlines():
            at, latency = map(float, line.split())
            if any(begin <= at <= end for begin, end in self.windows[phase]):
                late.append(latency * 1000)
        late.sort()
        print(
            f"  {phase}: {len(late)} deliveries, p50 {late[len(late) // 2]:.1f} ms, p99 {late[len(late) * 99 // 100]:.1f} ms"
        )
        return late[len(late) * 99 // 100]


async def take_turns(bench: Bench) -> None:
    await bench.measure("without")
    bench.pss_before = pss_bytes(bench.pid)
    for _ in range(ROUNDS):
        async with bench.deaf():  # type: ignore[attr-defined]
            await bench.all_deaf()
            bench.tell_cost()
            await bench.measure("with")
        await until_metric(bench.url, OPEN, bench.few)
        await bench.measure("without")
    print(f"  ratio of p99: {bench.p99_ms('with') / bench.p99_ms('without'):.2f}")


async def wait_until_gone(bench: Bench) -> None:
    """They come, hold all that they may, and are cut."""
    async with bench.deaf():  # type: ignore[attr-defined]
        await bench.all_deaf()
        filled = time.monotonic()
        held = await metric(bench.url, UNSENT) / NEVER_READERS / 1024
        bench.tell_cost()
        print(f"  bytes held for each: {held:.0f} KiB")
        await until_metric(bench.url, OPEN, bench.few, 120)
        print(f"  the last is gone {time.monotonic() - filled:.1f} s after the buffers were full")
    slow = await metric(bench.url, 'juinie_streams_closed_total{reason="slow"}')
    print(
        f"  told that they are slow: {slow:.0f}; PSS afterwards {(pss_bytes(bench.pid) - bench.pss_before) / 2**20:+.1f} MiB"
    )


@pytest.fixture
async def bench(
    database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, pool: Pool, tmp_path: Path
) -> AsyncGenerator[Bench]:
    """A gateway, runs that go on, and those who read them."""
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=3)
    stack = Stack(
        database_url, kafka_bootstrap_servers, kafka_topic, tmp_path,
        environment={
            "JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS,
            "JUINIE_LOG_LEVEL": "warning",
            "JUINIE_RECENT_BYTES": str(RECENT_BYTES),
        },
    )  # fmt: skip
    await stack.publisher.start()
    await stack.gateway.start()
    seed = Seed(pool)
    bench = Bench(stack, seed, await seed.key(), tmp_path / "notes")
    try:
        await bench.prepare()
        appending = asyncio.create_task(append_for_ever(seed, bench.runs, bench.long_run))
        async with bench.readers():  # type: ignore[attr-defined]
            await until_metric(bench.url, OPEN, bench.few)
            yield bench
        appending.cancel()
    finally:
        stack.end()


async def test_readers_beside_those_that_never_read(bench: Bench) -> None:
    await take_turns(bench)
    await wait_until_gone(bench)


async def test_memory_of_those_that_are_gone_is_used_again(bench: Bench) -> None:
    """What the first crowd took stays with the process, and the later ones live in it."""
    await bench.measure("without")
    bench.pss_before = pss_bytes(bench.pid)
    for _ in range(CROWDS):
        await wait_until_gone(bench)


if __name__ == "__main__":
    kind, port, key, *rest = sys.argv[1:]
    asyncio.run(
        read_and_note(int(port), key, rest[1:], Path(rest[0]))
        if kind == "read"
        else never_read(int(port), key, rest)
    )
