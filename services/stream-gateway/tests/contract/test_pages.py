"""Pages of stored events: each frame as one from Kafka would be, and never more of them than a page holds."""

import pytest

from juinie_shared.contracts.sse import event_frame
from juinie_shared.db.event_json import EVENT_JSON
from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import RunId, Seq
from juinie_stream_gateway.store import FRAME_BYTES, PageLimits, Store
from juinie_testkit.seed import Seed, SeededKey


@pytest.fixture
async def run_id(seed: Seed, key: SeededKey) -> RunId:
    """A run with 20 events of very different sizes: some are empty, or take more bytes than characters."""
    run_id = await seed.run(key)
    await seed.append(run_id, *[(f"a.b/c-{n}", {"text": "ü\n\\" * (n % 5) * 100}) for n in range(19)])
    return run_id


async def frames_of(pool: Pool, run_id: RunId) -> list[bytes]:
    async with pool.connection() as connection:
        rows = await connection.fetch(
            f"SELECT e.seq, {EVENT_JSON} AS json FROM run_event AS e WHERE run_id = $1 ORDER BY seq", run_id
        )
    return [event_frame(row["seq"], row["json"].encode()) for row in rows]


async def page_of(pool: Pool, run_id: RunId, after_seq: int, limits: PageLimits) -> list[bytes]:
    page = await Store(pool, limits).read_page(run_id, Seq(after_seq))
    assert page is not None
    assert [event.seq for event in page.events] == [after_seq + n for n in range(1, len(page.events) + 1)]
    return [event.frame for event in page.events]


async def test_a_frame_from_postgres_is_one_from_kafka_byte_for_byte(pool: Pool, run_id: RunId) -> None:
    frames = await frames_of(pool, run_id)
    assert len(frames) == 20
    assert await page_of(pool, run_id, 0, PageLimits()) == frames
    assert await page_of(pool, run_id, 20, PageLimits()) == []


async def test_a_page_holds_so_many_events(pool: Pool, run_id: RunId) -> None:
    assert await page_of(pool, run_id, 3, PageLimits(events=4)) == (await frames_of(pool, run_id))[3:7]


@pytest.mark.parametrize("most_bytes", [1, 600, 2000, 5000])
async def test_a_page_holds_so_many_bytes_or_one_event(pool: Pool, run_id: RunId, most_bytes: int) -> None:
    frames = await frames_of(pool, run_id)
    for after_seq in range(20):
        page = await page_of(pool, run_id, after_seq, PageLimits(bytes=most_bytes))
        assert page == frames[after_seq : after_seq + len(page)] != []
        assert len(page) == 1 or sum(map(len, page)) <= most_bytes
        following = frames[after_seq + len(page) : after_seq + len(page) + 1]
        assert not following or sum(map(len, [*page, *following])) > most_bytes - FRAME_BYTES * (
            len(page) + 1
        )
