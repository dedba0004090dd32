"""An event's JSON is rendered in the database: its bytes are those that came in, its time is ours."""

from datetime import UTC, datetime

import pytest

from juinie_shared.contracts.record import RunEventRecord
from juinie_shared.contracts.rendered_record import RenderedRecord, RunBytes
from juinie_shared.db.event_json import EVENT_JSON
from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import Seq, TenantId, new_uuid7
from juinie_shared.domain.times import format_time, parse_time
from juinie_testkit.seed import Json, Seed

SOMEBODY = TenantId(new_uuid7())
RENDER = f"SELECT {EVENT_JSON} AS json FROM run_event e WHERE e.run_id = $1 AND e.seq = $2"


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 23, 12, tzinfo=UTC),
        datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC),
        datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
)
async def test_time_in_sql_is_the_text_that_python_writes(pool: Pool, moment: datetime):
    seed = Seed(pool)
    run_id = await seed.run("a")
    await seed.append(run_id, ("a", None, moment))
    async with pool.connection() as connection:
        json = await connection.fetchval(RENDER, run_id, 2)
    assert json == f'{{"seq":2,"type":"a","time":"{format_time(moment)}","data":null}}'


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
async def test_time_does_not_depend_on_the_sessions_zone(pool: Pool, zone: str):
    seed = Seed(pool)
    run_id = await seed.run("a")
    await seed.append(run_id, ("a", 1, datetime(2026, 7, 1, tzinfo=UTC)))
    async with pool.transaction() as connection:
        await connection.execute(f"SET LOCAL timezone = '{zone}'")
        assert '"time":"2026-07-01T00:00:00.000000Z"' in await connection.fetchval(RENDER, run_id, 2)


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "1.0",
        "1e400",
        "9007199254740993",
        r'"\u0000\ud83d\ude00\/"',
        '"日本 🜁"',
        r'{"b":1,"a":{"b":[]},"b":2}',
        r'"back\\slash $1 %s"',
        "[]",
        '""',
    ],
)
async def test_data_goes_out_as_it_came_in(pool: Pool, data: str):
    seed = Seed(pool)
    run_id = await seed.run("a")
    await seed.append(run_id, ("A.b/c_d-1", Json(data)))
    async with pool.connection() as connection:
        json = await connection.fetchval(RENDER, run_id, 2)
    assert json.startswith('{"seq":2,"type":"A.b/c_d-1","time":"')
    assert json.endswith(f'Z","data":{data}}}')
    time = json.split('"')[9]
    assert parse_time(time) is not None
    record = RunEventRecord(run_id, SOMEBODY, Seq(2), "A.b/c_d-1", time, json.encode(), None)
    assert RenderedRecord(RunBytes.of(run_id, SOMEBODY), json, None).packed() == record.packed()
