"""Kafka lost altogether: its topic is deleted with all that was in it. Watchers notice nothing, and Postgres gives it back."""

import asyncio

import pytest

from juinie_shared.contracts.record import read_record
from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.follower import Follower
from juinie_testkit.kafka import delete_topic, read_topic
from juinie_testkit.seed import SeededKey
from juinie_testkit.stack import Stack
from juinie_testkit.waits import await_outbox_flush

pytestmark = pytest.mark.timeout(300)

RUNS = 5
EVER = {"created_after": "2020-01-01T00:00:00Z", "created_before": "2120-01-01T00:00:00Z"}


async def feed(api: ApiClient, run_ids: list[str], appends: int) -> None:
    for number in range(appends):
        await asyncio.gather(*(api.append(run_id, ("token", number)) for run_id in run_ids))


def first_times(records: list[object]) -> dict[str, list[int]]:
    seen: dict[str, dict[int, None]] = {}
    for record in records:
        event = read_record(record.key, record.value, record.headers)  # pyright: ignore[reportAttributeAccessIssue]
        seen.setdefault(str(event.run_id), {}).setdefault(event.seq)
    return {run_id: list(seqs) for run_id, seqs in seen.items()}


async def test_lost_topic_is_filled_again_from_postgres_and_no_watcher_notices(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    run_ids = [(await api.create())["run_id"] for _ in range(RUNS)]
    followers = [Follower([stack.gateway.url], run_id, key=key.text) for run_id in run_ids]
    async with asyncio.TaskGroup() as group:
        for follower in followers:
            group.create_task(follower.follow(240))
        await feed(api, run_ids, 10)
        await delete_topic(stack.kafka_bootstrap_servers, stack.kafka_topic)
        await feed(api, run_ids, 10)
        for run_id in run_ids:
            await api.finish(run_id)
    expected = {run_id: list(range(1, 24)) for run_id in run_ids}
    assert {run_id: follower.seqs for run_id, follower in zip(run_ids, followers, strict=True)} == expected
    assert [len(follower.watchers) for follower in followers] == [1] * RUNS
    for run_id in run_ids:
        await await_outbox_flush(stack_pool, run_id)

    answer = await api.http.post("/v1/admin/republish", json=EVER)
    assert (answer.status_code, answer.json()) == (202, {"records": 23 * RUNS})
    for run_id in run_ids:
        await await_outbox_flush(stack_pool, run_id)

    def all_is_there(records: list[object]) -> bool:
        seen = first_times(records)
        return all(sorted(seen.get(run_id, [])) == seqs for run_id, seqs in expected.items())

    await read_topic(stack.kafka_bootstrap_servers, stack.kafka_topic, all_is_there, 60)
