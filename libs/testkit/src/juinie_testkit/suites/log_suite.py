"""What a run's log promises, whoever keeps it. A subclass gives the fixture `log`."""

import json
from typing import Any
from uuid import uuid4

import pytest


class LogSuite:
    """Inherit as `class TestX(LogSuite)` and define `log`: a `FakeLog` or what stands in its place."""

    async def test_first_event_of_a_run_is_its_creation(self, log: Any) -> None:
        run_id = await log.create()
        assert [(event.seq, event.type) for event in await log.read_after(run_id, 0)] == [(1, "run.created")]
        assert await log.status(run_id) == "pending"

    async def test_seqs_follow_without_gap(self, log: Any) -> None:
        run_id = await log.create()
        assert await log.append(run_id, ("a", "1"), ("b", "2")) == (2, 3)
        assert await log.append(run_id, ("c", "3")) == (4, 4)
        assert await log.last_seq(run_id) == 4
        assert [event.seq for event in await log.read_after(run_id, 0)] == [1, 2, 3, 4]

    async def test_reading_after_a_seq_is_exclusive_and_bounded(self, log: Any) -> None:
        run_id = await log.create()
        await log.append(run_id, *((f"t{number}", "null") for number in range(2, 8)))
        assert [event.seq for event in await log.read_after(run_id, 3, limit=2)] == [4, 5]
        assert await log.read_after(run_id, 7) == []
        assert await log.read_after(run_id, 1000) == []

    async def test_data_comes_out_as_it_went_in(self, log: Any) -> None:
        run_id = await log.create()
        data = r'{"z":1.0,"a":9007199254740993,"n":1e400,"nul":"\u0000","é":"\u00e9"}'
        await log.append(run_id, ("any/type-1.x_y", data))
        (event,) = await log.read_after(run_id, 1)
        assert event.json.startswith('{"seq":2,"type":"any/type-1.x_y","time":"')
        assert event.json.endswith(f'Z","data":{data}}}')
        assert json.loads(event.json)["seq"] == 2

    async def test_an_end_is_the_last_event_and_the_status(self, log: Any) -> None:
        run_id = await log.create()
        assert await log.finish(run_id, "error") == 2
        (event,) = await log.read_after(run_id, 1)
        assert event.type == "run.finished"
        assert event.json.endswith('"data":{"status":"error","output":null,"error":null}}')
        assert await log.status(run_id) == "error"

    async def test_each_append_waits_as_one_range_until_it_is_sent(self, log: Any) -> None:
        run_id = await log.create()
        await log.append(run_id, ("a", "1"), ("b", "2"))
        assert await log.unsent(run_id) == [(1, 1), (2, 3)]
        await log.mark_sent(run_id, 1)
        await log.mark_sent(run_id, 1)
        assert await log.unsent(run_id) == [(2, 3)]

    async def test_runs_do_not_see_each_other(self, log: Any) -> None:
        first, second = await log.create(), await log.create()
        await log.append(first, ("a", "1"))
        assert await log.last_seq(second) == 1
        assert await log.unsent(second) == [(1, 1)]

    async def test_an_unknown_run_takes_no_events(self, log: Any) -> None:
        with pytest.raises(LookupError):
            await log.append(uuid4(), ("a", "1"))
