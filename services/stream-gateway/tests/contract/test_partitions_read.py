"""A gateway reads the partitions of those runs that are watched there, and no others."""

from collections.abc import Iterable
from uuid import UUID

import pytest

from juinie_stream_gateway.edges.bare_records import BareRecord
from juinie_stream_gateway.edges.kafka import RecordReader
from juinie_stream_gateway.edges.kafka_session import murmur2
from juinie_testkit.running import RunningService
from juinie_testkit.scrape import until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.watcher import Watcher

PARTITIONS = 3


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """The keys of all records that a gateway is given from now on."""
    keys = list[bytes | None]()
    take = RecordReader._take

    def noted(reader: RecordReader, records: Iterable[BareRecord]) -> None:
        given = list(records)
        keys.extend(record.key for record in given)
        take(reader, given)

    monkeypatch.setattr(RecordReader, "_take", noted)
    return keys


def partition_of(key: bytes) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % PARTITIONS


async def run_of_each_partition(seed: Seed, key: SeededKey) -> list[UUID]:
    found = dict[int, UUID]()
    while len(found) < PARTITIONS:
        run_id = await seed.run(key)
        found.setdefault(partition_of(str(run_id).encode()), run_id)
    return [found[number] for number in range(PARTITIONS)]


async def test_partitions_of_runs_that_nobody_watches_are_not_read(
    seen: list[bytes | None], topic, gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    await until_metric(gateway.url, 'juinie_stream_mode{mode="live"}', 1, 20)
    runs = await run_of_each_partition(seed, key)
    async with Watcher(gateway.url, runs[0], key=key.text) as first:
        await first.until_caught_up()
        for run_id in reversed(runs):  # that of the watched one comes last
            events, last = await seed.append(run_id, *[("text", i) for i in range(20)])
            await topic.publish(run_id, events, last)
        await first.until_seq(last)
        async with Watcher(gateway.url, runs[1], key=key.text) as second:
            await second.until_caught_up()
            _, last = await seed.append(runs[1], ("text", "later"))
            await topic.publish(runs[1], last)
            await second.until_seq(last)
    keys = [str(run_id).encode() for run_id in runs]
    assert [seen.count(run_key) for run_key in keys] == [20, 1, 0]
