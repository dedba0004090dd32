"""A client that leaves in mid-request: what it sent is stored whole or not at all, and its connection goes back to the pool."""

import asyncio
from typing import Any

from juinie_api.app import serve
from juinie_testkit.raw_stream import connect_raw
from juinie_testkit.running import running
from juinie_testkit.waits import eventually

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'juinie-api' AND wait_event_type = 'Lock'
"""
BUSY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'juinie-api' AND state <> 'idle'
"""
BODY = b'{"events":[{"type":"pair","data":1},{"type":"pair","data":2}]}'


def append_request(run_id: str, key: str) -> bytes:
    return (
        f"POST /v1/runs/{run_id}/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY


async def test_who_leaves_while_its_append_waits_for_the_row_holds_nothing(api: Any):
    """More leave than there are connections, so that one that was not given back would be missed."""
    run_id = (await api.create())["run_id"]
    async with api.pool.transaction() as holder:
        await holder.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await holder.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", run_id)
        clients = [await connect_raw(api.service.port) for _ in range(30)]
        for client in clients:
            await client.send(append_request(run_id, api.key.text))
        await eventually(lambda: some_wait(api), 20, "an append that waits for the row")
        for client in clients:
            client.leave()
    await eventually(lambda: nobody_busy(api), 20, "every connection idle again")

    answers = await asyncio.gather(*(api.append(run_id, "pair", "pair") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    await assert_whole_pairs(api, run_id)


async def test_who_leaves_at_any_byte_of_its_append_leaves_it_whole_or_nothing(api: Any):
    run_id = (await api.create())["run_id"]
    request = append_request(run_id, api.key.text)
    for length in (*range(1, len(request), 7), *[len(request)] * 20):
        client = await connect_raw(api.service.port)
        await client.send(request[:length])
        client.leave()
    await eventually(lambda: nobody_busy(api), 20, "every connection idle again")

    assert (await api.append(run_id, "pair", "pair")).status_code == 201
    await assert_whole_pairs(api, run_id)


async def test_one_connection_is_enough_whoever_left_before(api: Any, settings: Any):
    """With a pool of one, an append that was cancelled in the middle and kept its connection would be the last."""
    run_id = (await api.create())["run_id"]
    one = settings.model_copy(update={"database_connections": 1})
    async with running(serve, one) as service, api.client_of_service(service) as client:
        for _ in range(20):
            leaving = await connect_raw(service.port)
            await leaving.send(append_request(run_id, api.key.text))
            leaving.leave()
            answer = await client.post(f"/v1/runs/{run_id}/events", json={"events": [{"type": "pair"}] * 2})
            assert answer.status_code == 201, answer.text
    await assert_whole_pairs(api, run_id)


async def some_wait(api: Any) -> bool:
    """Not asked in a transaction: there the answer would stay what it was at first."""
    return (await api.rows(WAITING))[0]["count"] > 0


async def nobody_busy(api: Any) -> bool:
    return (await api.rows(BUSY))[0]["count"] == 0


async def assert_whole_pairs(api: Any, run_id: str) -> None:
    events = await api.events(run_id, limit=1000)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events[:2]] == ["run.created", "run.started"]
    assert {event["type"] for event in events[2:]} == {"pair"}
    assert len(events) % 2 == 0
