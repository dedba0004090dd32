"""Whatever Kafka does, whenever Postgres answers, however slowly a watcher reads: each seq once, in order, and the end.

The hub, the follower, the backfill and the tail check are the real ones. Their I/O is scripted: hypothesis decides
which record comes when (late, twice, out of order, never, forged), when a database read takes its snapshot and when
its answer arrives, and when a watcher's outlet is full.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from juinie_shared.contracts.sse import event_frame
from juinie_shared.domain.errors import DatabaseAway
from juinie_shared.domain.events import RUN_FINISHED
from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId, new_uuid7
from juinie_shared.domain.runs import RunStatus
from juinie_stream_gateway.core.backfill import Backfill
from juinie_stream_gateway.core.follow import Follower
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.core.recent import EVENT_BYTES, RecentFrames
from juinie_stream_gateway.core.start import start_of
from juinie_stream_gateway.core.tail import TailCheck
from juinie_stream_gateway.core.watcher import Watcher, passes
from juinie_stream_gateway.store import Event, Page, RunRow

RUN = RunId(new_uuid7())
TENANT = TenantId(new_uuid7())
KEY = KeyId(new_uuid7())
PAGE_EVENTS = 4
TYPES = ("a", "b")


def ready(seq: int, event_type: str, era: int = 0) -> Event:
    content = {"seq": seq, "type": event_type, "era": era}
    return Event(Seq(seq), event_type, event_frame(seq, json.dumps(content).encode()))


@dataclass
class Database:
    """One run. Reads take their snapshot when they begin and answer when they are let. An era begins where it is restored from a
    backup; `ends`: where it has ever ended, and in which era.
    """

    types: list[str] = field(default_factory=lambda: ["run.created"])
    eras: list[int] = field(default_factory=lambda: [0])
    finished: bool = False
    era: int = 0
    ends: list[tuple[int, int]] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def last_seq(self) -> Seq:
        return Seq(len(self.types))

    def finish(self) -> None:
        self.append(RUN_FINISHED)
        self.finished = True
        self.ends.append((self.last_seq, self.era))

    def append(self, *types: str) -> None:
        self.types += types
        self.eras += [self.era] * len(types)

    def restore(self, last_seq: int) -> None:
        """What came since is gone, and the run goes on from there."""
        del self.types[last_seq:], self.eras[last_seq:]
        self.era += 1
        self.finished = self.types[-1] == RUN_FINISHED

    def row(self) -> RunRow:
        return RunRow(self.last_seq, RunStatus.SUCCESS if self.finished else RunStatus.RUNNING)

    def event(self, seq: int) -> Event:
        return ready(seq, self.types[seq - 1], self.eras[seq - 1])

    async def read_page(self, _run_id: RunId, after_seq: Seq) -> Page:
        last = min(self.last_seq, after_seq + PAGE_EVENTS)
        page = Page(self.row(), tuple(self.event(seq) for seq in range(after_seq + 1, last + 1)))
        await self._answer()
        return page

    async def read_runs(self, run_ids: Iterable[RunId]) -> dict[RunId, RunRow]:
        rows = {run_id: self.row() for run_id in run_ids}
        await self._answer()
        return rows

    async def _answer(self) -> None:
        let = asyncio.get_running_loop().create_future()
        self.waiting.append(let)
        await let

    def let(self, which: int, fail: bool = False) -> None:
        if self.waiting:
            future = self.waiting.pop(which % len(self.waiting))
            if not future.done():
                future.set_exception(DatabaseAway()) if fail else future.set_result(None)


class Line:
    """Takes what its outlet takes, while that is not full."""

    def __init__(self, outlet: "ScriptedOutlet") -> None:
        self._outlet = outlet

    @property
    def write(self) -> Callable[[bytes], None] | None:
        return None if self._outlet.full or self._outlet.closing else self._outlet.write


class ScriptedOutlet:
    """An outlet whose client reads when it is told to."""

    def __init__(self) -> None:
        self.sent = b""
        self.written_bytes = 0
        self.closing: str | None = None
        self.full = False
        self._changed = asyncio.Event()
        self.line = Line(self)

    @property
    def idle(self) -> bool:
        return not self.full and self.closing is None

    def write(self, data: bytes) -> None:
        assert self.closing is None
        self.sent += data
        self.written_bytes += len(data)  # straight to the transport: nobody is woken

    def write_each(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self.write(frame)

    def wake(self) -> None:
        self._changed.set()

    def finish(self) -> None:
        assert self.closing is None
        self.closing = "ended"
        self._changed.set()

    def reconnect(self, reason: str) -> None:
        self.closing = self.closing or reason
        self._changed.set()

    def read(self) -> None:
        self.full = False
        self._changed.set()

    async def flush(self) -> None:
        while self.full and not self.closing:
            self._changed.clear()
            await self._changed.wait()

    async def wait(self, seconds: float | None = None) -> None:
        if seconds is not None:
            await asyncio.sleep(0)
        elif not self.closing:
            self._changed.clear()
            await self._changed.wait()


class Client:
    def __init__(self, world: "World", after_seq: int, types: frozenset[str] | None) -> None:
        self.outlet = ScriptedOutlet()
        self.after_seq, self.types = after_seq, types
        start = start_of(Seq(after_seq), world.database.row())
        assert start is not None
        self.watcher = Watcher(self.outlet, start, types)
        self.following = asyncio.create_task(self._follow(world.follower))

    async def _follow(self, follower: Follower) -> None:
        room = follower.join(RUN, TENANT, KEY, self.watcher)
        while await follower.follow(room, self.watcher):
            await self.outlet.wait()
        follower.leave(room, self.watcher)

    def shown(self) -> list[int]:
        return self._seqs(self.outlet.sent.decode())

    def shown_since_the_last_reset(self) -> list[int]:
        _, _, rest = self.outlet.sent.decode().rpartition("event: stream.reset\n")
        return self._seqs(rest)

    @staticmethod
    def _seqs(text: str) -> list[int]:
        lines = text.split("\n")
        return [json.loads(line[6:])["seq"] for line in lines if line.startswith('data: {"seq"')]

    def last_era(self) -> int:
        """Of the events that it was shown."""
        lines = self.outlet.sent.decode().split("\n")
        return max(
            (json.loads(line[6:])["era"] for line in lines if line.startswith('data: {"seq"')), default=0
        )

    def end(self) -> int:
        return json.loads(self.outlet.sent.decode().rpartition("event: stream.end\ndata: ")[2])["last_seq"]

    def controls(self) -> list[str]:
        return [line[7:] for line in self.outlet.sent.decode().split("\n") if line.startswith("event: ")]

    def ids(self) -> list[int]:
        return [int(line[4:]) for line in self.outlet.sent.decode().split("\n") if line.startswith("id: ")]


class World:
    def __init__(self, slice_of: int) -> None:
        self.database = Database()
        self.refills: set[asyncio.Task[None]] = set()
        self.hub = Hub(
            RecentFrames(6 * (45 + EVENT_BYTES)),
            self._refill,
            asyncio.get_running_loop().call_soon,
            slice_of=slice_of,
            few=slice_of,
        )
        self.hub.kafka_live = True
        self.backfill = Backfill(self.database.read_page)
        self.follower = Follower(self.hub, self.backfill, self._listen)
        self.tail = TailCheck(self.hub, self.database.read_runs, 1.5, 0.5, at_once=1)
        self.clients: list[Client] = []

    def _refill(self, room: Room) -> None:
        self.refills.add(asyncio.create_task(self.backfill.refill(self.hub, room)))

    async def _listen(self, _run_id: RunId) -> None:
        await asyncio.sleep(0)

    def deliver(self, *events: Event) -> None:
        room = self.hub.rooms_by_key.get(str(RUN).encode())
        if room is not None:
            for each in events:
                self.hub.take_record(room, each)
            self.hub.hand_on()

    async def breathe(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def calm_down(self) -> None:
        """Everything that was under way answers, and the tail check comes by often enough."""
        for _ in range(30):
            for client in self.clients:
                client.outlet.read()
            check = asyncio.create_task(self.tail.check(self.tail.due()))
            for _ in range(4):
                await self.breathe()
                while self.database.waiting:
                    self.database.let(0)
                    await asyncio.sleep(0)
            await check


def act(world: World, action: tuple[str, int, int]) -> None:  # noqa: C901 - one arm for each thing that happens
    name, first, second = action
    database = world.database
    match name:
        case "append" if not database.finished:
            database.append(*(TYPES[(first + offset) % 2] for offset in range(1 + second % 6)))
        case "deliver":  # any stored event, at any time, as often as it likes
            world.deliver(database.event(1 + first % database.last_seq))
        case "deliver_newest":
            world.deliver(
                *(
                    database.event(seq)
                    for seq in range(max(1, database.last_seq - second % 4), database.last_seq + 1)
                )
            )
        case "forge":  # a seq far ahead, or an old one with another content
            world.deliver(ready(database.last_seq + 2 + first % 50, "forged"), ready(1, "forged"))
        case "join":
            types = None if second % 3 else frozenset({TYPES[second % 2]})
            after_seq = first % (database.last_seq + 1)
            if start_of(Seq(after_seq), database.row()) is not None:  # else there is nothing more
                world.clients.append(Client(world, after_seq, types))
        case "restore":
            database.restore(1 + first % database.last_seq)
        case "finish" if not database.finished:
            database.finish()
        case "let":
            database.let(first)
        case "fail":
            database.let(first, fail=True)
        case "check":
            world.refills.add(asyncio.create_task(_ignoring_outage(world.tail)))
        case "fill" if world.clients:
            world.clients[first % len(world.clients)].outlet.full = True
        case "read" if world.clients:
            world.clients[first % len(world.clients)].outlet.read()
        case "kafka":
            world.hub.kafka_live = bool(first % 2)
        case _:
            pass


async def _ignoring_outage(tail: TailCheck) -> None:
    try:
        await tail.check(tail.due())
    except DatabaseAway:
        return


NAMES = (
    "append", "append", "deliver", "deliver_newest", "deliver_newest", "forge", "join", "join", "let", "let",
    "fail", "check", "fill", "read", "kafka",
)  # fmt: skip
NUMBERS = st.integers(0, 100)
ACTIONS = st.tuples(st.sampled_from(NAMES), NUMBERS, NUMBERS)
ACTIONS_AND_RESTORES = st.tuples(st.sampled_from((*NAMES, "restore", "restore", "finish")), NUMBERS, NUMBERS)


async def play(actions: list[tuple[str, int, int]], finish_known_to_kafka: bool, slice_of: int) -> World:
    world = World(slice_of)
    for action in actions:
        act(world, action)
        if action[2] % 2:
            await world.breathe()
    world.clients.append(Client(world, 0, None))
    await world.calm_down()
    if not world.database.finished:
        world.database.finish()
    if finish_known_to_kafka:
        world.deliver(world.database.event(world.database.last_seq))
    await world.calm_down()
    await asyncio.gather(*(client.following for client in world.clients), *world.refills)
    return world


def check(world: World, client: Client) -> None:
    if client.outlet.closing == "database_unavailable":  # it was told to come back; what it saw has no gap
        expected = expected_seqs(world, client)[: len(client.shown())]
        assert client.shown() == expected
        assert "stream.end" not in client.controls()
        return
    assert client.outlet.closing == "ended"
    assert client.shown() == expected_seqs(world, client)
    assert client.controls() == ["stream.caught_up", "stream.end"]
    ids = client.ids()
    assert ids == sorted(set(ids))
    assert ids[-1:] == [world.database.last_seq]


def expected_seqs(world: World, client: Client) -> list[int]:
    return [
        seq
        for seq in range(client.after_seq + 1, world.database.last_seq + 1)
        if passes(world.database.types[seq - 1], client.types)
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=40), st.booleans(), st.sampled_from([1, 2, 1000]))
def test_every_watcher_sees_every_seq_once_in_order_and_the_end_once(
    actions: list[tuple[str, int, int]], finish_known_to_kafka: bool, slice_of: int
) -> None:
    world = asyncio.run(play(actions, finish_known_to_kafka, slice_of))
    for client in world.clients:
        check(world, client)
    assert world.hub.rooms() == []


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS_AND_RESTORES, max_size=40), st.booleans(), st.sampled_from([1, 2, 1000]))
def test_over_restored_databases_every_watcher_comes_to_the_end_of_the_run_as_it_is_now(
    actions: list[tuple[str, int, int]], finish_known_to_kafka: bool, slice_of: int
) -> None:
    world = asyncio.run(play(actions, finish_known_to_kafka, slice_of))
    for client in world.clients:
        if client.outlet.closing == "database_unavailable":
            continue
        assert client.outlet.closing == "ended"
        assert any(client.end() == seq and client.last_era() <= era for seq, era in world.database.ends), (
            "it saw the run go on from where that had been undone"
        )
        if client.ids()[-1:] != [world.database.last_seq]:
            continue  # it ended as the run had before it was set back, or where it stood already
        controls = [name for name in client.controls() if name != "stream.reset"]
        assert controls == ["stream.caught_up", "stream.end"]
        if client.types is None:
            begin = 0 if "stream.reset" in client.controls() else client.after_seq
            assert client.shown_since_the_last_reset() == list(range(begin + 1, world.database.last_seq + 1))
    assert world.hub.rooms() == []
