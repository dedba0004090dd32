"""What a load needs, by formulas: processes, cores, memory, connections, and bytes to the disk, to Kafka and to watchers.

The costs are of docs/explanation/performance.md and of small real runs on the bench's two busy cores. `python bench capacity` prints
what some loads need; `--check` holds the formulas against small real runs (`capacity_check.py`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

MICRO = 1e-6
PLANNED = 0.6
"""Of a core, for a process: what is left is for the moments in which more comes."""
STREAMS_A_PROCESS = 10_000


@dataclass(frozen=True, slots=True)
class Load:
    """`events_a_second` and `watchers` are of each run. `routed`: whoever watches a run is sent to the process that reads its partition, as the processes of one gateway do it."""

    active_runs: int
    events_a_second: float
    events_an_append: int
    watchers: float
    event_bytes: int = 200
    routed: bool = False

    @property
    def events(self) -> float:
        """All events of a second."""
        return self.active_runs * self.events_a_second

    @property
    def appends(self) -> float:
        return self.events / self.events_an_append

    @property
    def streams(self) -> float:
        return self.active_runs * self.watchers

    @property
    def deliveries(self) -> float:
        return self.events * self.watchers


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU in µs, the rest in bytes."""

    append_api: float = 240.0
    append_api_event: float = 2.5
    append_postgres: float = 60.0
    append_postgres_event: float = 4.2
    row_publisher: float = 3.0
    row_publisher_event: float = 2.6
    row_postgres: float = 10.2
    row_postgres_event: float = 1.4
    round_publisher: float = 500.0
    """Of the relay: fetch, send, delete. While one lasts, what comes waits for the next: see `rounds`."""
    round_postgres: float = 600.0
    round_gateway: float = 350.0
    """A poll of Kafka, which brings what a round has sent."""
    round_seconds: float = 0.003
    record: float = 8.0
    """An event, read by a gateway where its run is watched."""
    batch: float = 15.0
    """All events of an append, which come together: joined and kept."""
    record_passed_over: float = 5.0
    """Of a run that nobody watches here, in a partition that is read for others: 9.3 measured at 10,000 a second, with their share of polls."""
    write: float = 6.0
    """All events of an append, to one watcher."""
    look_gateway: float = 8.0
    """At a watched run, by the tail check, and what its watcher's heartbeat takes."""
    look_postgres: float = 3.0
    looks_a_second: float = 1 / 0.75
    rest: Mapping[str, float] = field(
        default_factory=lambda: {"publisher": 14_000.0, "gateway": 8_000.0, "postgres": 7_500.0}
    )
    """A second, with nothing to do; of Postgres, for one publisher."""
    wal_append: float = 770.0
    wal_event: float = 226.0
    """Besides the event's own bytes. Pages that go whole into the log after a checkpoint come on top: half as much again, or more."""
    record_bytes: float = 475.0
    """Of a record besides the event's own bytes: its JSON's head, key and headers."""
    stored_event: float = 172.0
    """Likewise, in the table and its index."""
    frame_bytes: float = 110.0
    """Likewise, to a watcher."""
    watcher_memory: float = 8_700.0
    recent_memory: float = 32 * 1024 * 1024
    """The newest frames, of a gateway's process where anything is watched: as much as `JUINIE_RECENT_BYTES` lets it keep, in time."""


AT_REST_BYTES = {"api": 62e6, "publisher": 60e6, "gateway": 55e6}
"""PSS of a process without load that exports its traces; 7 MB less where it does not."""
CONNECTIONS = {"api": 13, "publisher": 13, "gateway": 11}
"""Of each process to Postgres, at most, as it is set by default: its pools, and those that wait for notifications or look at health."""


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Need:
    """`cores`: used up, not planned for. Bytes are of a second but for `stored_bytes_a_day` and `memory_bytes`."""

    cores: Mapping[str, float]
    processes: Mapping[str, int]
    memory_bytes: Mapping[str, float]
    connections: int
    wal_bytes: float
    kafka_in_bytes: float
    kafka_out_bytes: float
    socket_bytes: float
    stored_bytes_a_day: float


class CannotBe(ValueError):
    """No number of gateways is enough: each would be busy with reading alone."""


def need(load: Load, gateways: int | None = None, c: Costs = COSTS) -> Need:
    """What a load needs. `gateways`: so many processes of them as there are, rather than as many as it takes.

    Raises:
        CannotBe: it has to be routed.
    """
    watched = min(1.0, load.watchers)
    looks = load.active_runs * watched * c.looks_a_second
    api = (load.appends * c.append_api + load.events * c.append_api_event) * MICRO
    rows = (load.appends * c.row_publisher + load.events * c.row_publisher_event) * MICRO
    publishers = _publishers(load, rows, c)
    rounds = publishers * _rounds(load.appends / publishers, c)
    publisher = rows + (rounds * c.round_publisher + publishers * c.rest["publisher"]) * MICRO
    own = (
        watched * (load.events * c.record + load.appends * c.batch)
        + load.appends * load.watchers * c.write
        + looks * c.look_gateway
    ) * MICRO
    each = (_rounds(load.appends, c) * c.round_gateway + c.rest["gateway"]) * MICRO
    reading = load.events * c.record_passed_over * MICRO
    if gateways is None:
        gateways = _gateways(load, own, each, reading)
    read_by_all = 1 if load.routed else gateways
    cores = {
        "api": api,
        "publisher": publisher,
        "gateway": own + gateways * each + reading * max(0.0, read_by_all - watched),
        "postgres": (
            load.appends * (c.append_postgres + c.row_postgres)
            + load.events * (c.append_postgres_event + c.row_postgres_event)
            + rounds * c.round_postgres
            + looks * c.look_postgres
            + publishers * c.rest["postgres"]
        )
        * MICRO,
    }
    processes = {"api": _processes(api), "publisher": publishers, "gateway": gateways}
    memory = {name: count * AT_REST_BYTES[name] for name, count in processes.items()}
    memory["gateway"] += load.streams * c.watcher_memory
    if load.deliveries:
        memory["gateway"] += gateways * c.recent_memory
    record = c.record_bytes + load.event_bytes
    return Need(
        cores,
        processes,
        memory,
        sum(count * CONNECTIONS[name] for name, count in processes.items()),
        load.appends * c.wal_append + load.events * (c.wal_event + load.event_bytes),
        load.events * record,
        load.events * record * read_by_all,
        load.deliveries * (c.frame_bytes + load.event_bytes),
        load.events * (c.stored_event + load.event_bytes) * 86_400,
    )


def _gateways(load: Load, own: float, each: float, reading: float) -> int:
    """Enough for the work that they share, for what each has to do besides, and for so many streams."""
    by_streams = max(1, math.ceil(load.streams / STREAMS_A_PROCESS))
    left = PLANNED - each - (0.0 if load.routed else reading)
    if left <= 0:
        raise CannotBe(f"{load.events:,.0f} events a second are more than one process reads: route them.")
    return max(by_streams, math.ceil(own / left))


def _rounds(rows: float, c: Costs) -> float:
    """Of a second, of one publisher that is given so many rows; and polls of a gateway, which take what several have sent meanwhile."""
    return rows / (1 + rows * c.round_seconds)


def _publishers(load: Load, rows: float, c: Costs) -> int:
    """Enough for their rows and for the rounds that each makes of its share of them. `rows`: cores that all rows take."""
    count = 1
    while (
        rows / count + (_rounds(load.appends / count, c) * c.round_publisher + c.rest["publisher"]) * MICRO
        > PLANNED
    ):
        count += 1
    return count


def _processes(cores: float) -> int:
    return max(1, math.ceil(cores / PLANNED))


LOADS: Mapping[str, Load] = {
    "1,000 active runs, 5 events a second each, one an append, 2 watchers": Load(1_000, 5, 1, 2),
    "the same, ten an append": Load(1_000, 5, 10, 2),
    "10,000 active runs, the same, ten an append, each process a gateway of its own": Load(10_000, 5, 10, 2),
    "the same, as processes of one gateway": Load(10_000, 5, 10, 2, routed=True),
    "100,000 active runs, 10 events a second each, ten an append, 100 watchers: 1 M events a second, 10 M watchers, routed": Load(
        100_000, 10, 10, 100, routed=True
    ),
}


def page() -> str:
    """The table of docs/explanation/scaling.md."""
    columns = (
        "load",
        "processes: api, publisher, gateway",
        "cores: api, publisher, gateway, Postgres",
        "memory: api, publisher, gateway",
        "connections",
        "log of Postgres",
        "to Kafka, from Kafka",
        "to watchers",
        "stored a day",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, load in LOADS.items():
        n = need(load)
        services = ("api", "publisher", "gateway")
        processes = ", ".join(f"{n.processes[part]:,}" for part in services)
        memory = ", ".join(_bytes(n.memory_bytes[part]) for part in services)
        cores = ", ".join(_short(n.cores[part]) for part in (*services, "postgres"))
        lines.append(
            f"| {name} | {processes} | {cores} | {memory} | {n.connections:,} | {_bytes(n.wal_bytes)}/s"
            f" | {_bytes(n.kafka_in_bytes)}/s, {_bytes(n.kafka_out_bytes)}/s | {_bytes(n.socket_bytes)}/s"
            f" | {_bytes(n.stored_bytes_a_day)} |"
        )
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
