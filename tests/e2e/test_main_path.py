"""POST → Postgres → Kafka → SSE, and back again after a drop, with every service as a process of its own."""

import asyncio
import random

import pytest

from juinie_shared.contracts.record import read_record
from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.kafka import read_topic
from juinie_testkit.seed import SeededKey
from juinie_testkit.stack import Stack
from juinie_testkit.waits import await_outbox_flush, await_stream_completion
from juinie_testkit.watcher import Watcher

pytestmark = pytest.mark.timeout(300)


async def test_run_is_created_fed_watched_and_finished(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    run = await api.create(input={"question": "why?"})
    assert run["stream_url"] == f"{stack.gateway.url}/v1/runs/{run['run_id']}/stream"
    async with Watcher(stack.gateway.url, run["run_id"], key=key.text) as watcher:
        await watcher.until_caught_up()
        assert (await api.append(run["run_id"], ("token", "Hel"), ("token", "lo")))["first_seq"] == 3
        await watcher.until_seq(4)
        await api.finish(run["run_id"], output={"answer": "Hello"})
        await await_stream_completion(watcher)
    assert [frame.json["type"] for frame in watcher.events] == [
        "run.created",
        "run.started",
        "token",
        "token",
        "run.finished",
    ]
    assert watcher.seqs == [1, 2, 3, 4, 5]
    assert watcher.control("stream.end") == {"last_seq": 5, "status": "success"}
    assert [event["seq"] for event in await api.events(run["run_id"])] == [1, 2, 3, 4, 5]
    await await_outbox_flush(stack_pool, run["run_id"])


async def test_same_bytes_reach_page_kafka_and_watcher(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    run_id = (await api.create())["run_id"]
    data = r'{"z":1.0,"big":9007199254740993,"huge":1e400,"nul":"\u0000","a":"\u00e9 é 🜁"}'.encode()
    body = b'{"events":[{"type":"nasty/x.y-z","data":' + data + b"}]}"
    answer = await api.http.post(
        f"/v1/runs/{run_id}/events", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201
    await api.finish(run_id)
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await await_stream_completion(watcher)
    await await_outbox_flush(stack_pool, run_id)
    sent = [(frame.data or "").encode() for frame in watcher.events]
    assert sent[2].endswith(b'Z","data":' + data + b"}")
    page = (await api.http.get(f"/v1/runs/{run_id}/events")).content
    assert b",".join(sent) in page
    records = await read_topic(
        stack.kafka_bootstrap_servers,
        stack.kafka_topic,
        lambda records: len(_of_run(records, run_id)) >= len(sent),
    )
    mine = _of_run(records, run_id)
    assert [record.value for record in mine] == sent
    assert [read_record(record.key, record.value, record.headers).seq for record in mine] == [1, 2, 3, 4]


async def test_watcher_resumes_at_every_position(stack: Stack, api: ApiClient, key: SeededKey):
    run_id = (await api.create())["run_id"]
    for number in range(3, 9):
        await api.append(run_id, ("token", number))
    for after_seq in range(9):
        async with Watcher(
            stack.gateway.url, run_id, key=key.text, after_seq=0, last_event_id=after_seq
        ) as watcher:
            await watcher.until_caught_up()
            assert watcher.seqs == list(range(after_seq + 1, 9))
    await api.finish(run_id)
    for after_seq in range(9):
        async with Watcher(stack.gateways[1].url, run_id, key=key.text, after_seq=after_seq) as watcher:
            await await_stream_completion(watcher)
            assert watcher.seqs == list(range(after_seq + 1, 10))
    async with Watcher(stack.gateway.url, run_id, key=key.text, after_seq=9) as watcher:
        assert watcher.status == 204


async def test_many_watchers_join_at_random_moments_and_each_sees_everything_once(
    stack: Stack, api: ApiClient
):
    chance = random.Random(20261123)
    run_id = (await api.create())["run_id"]
    token = await api.stream_token(run_id)
    watchers: list[Watcher] = []

    async def watch(name: int, after_appends: int) -> None:
        await reached[after_appends].wait()
        async with Watcher(
            chance.choice(stack.gateways).url, run_id, token=token, name=f"watcher {name}"
        ) as watcher:
            watchers.append(watcher)
            await await_stream_completion(watcher, timeout_seconds=60)

    reached = [asyncio.Event() for _ in range(31)]
    async with asyncio.TaskGroup() as group:
        for name in range(40):
            group.create_task(watch(name, chance.randrange(31)))
        for number in range(30):
            reached[number].set()
            await api.append(run_id, *(("token", number) for _ in range(chance.randrange(1, 4))))
        await api.finish(run_id)
        reached[30].set()
    last_seq = (await api.get(run_id))["last_seq"]
    assert [watcher.seqs for watcher in watchers] == [list(range(1, last_seq + 1))] * 40


async def test_two_gateways_serve_the_same_run_and_a_watcher_moves_between_them(
    stack: Stack, api: ApiClient, key: SeededKey
):
    first, second = stack.gateways
    run_id = (await api.create())["run_id"]
    async with (
        Watcher(first.url, run_id, key=key.text) as here,
        Watcher(second.url, run_id, key=key.text) as there,
    ):
        await api.append(run_id, ("token", 1))
        await asyncio.gather(here.until_seq(3), there.until_seq(3))
        await here.drop()
        await api.append(run_id, ("token", 2))
        async with here.resume(second.url) as moved:
            await api.finish(run_id)
            await await_stream_completion(there, moved)
    assert (here.seqs, moved.seqs, there.seqs) == ([1, 2, 3], [4, 5], [1, 2, 3, 4, 5])
    assert [frame.data for frame in here.events + moved.events] == [frame.data for frame in there.events]


def _of_run(records: list, run_id: str) -> list:
    return [record for record in records if record.key == run_id.encode()]
