"""`juinie verify`, `juinie torture` and the Python client, against the whole stack."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from juinie import Client, RunFinished
from juinie_shared.db.pool import Pool
from juinie_testkit.kafka import Record, admin_of, create_topic, produce_raw, read_topic
from juinie_testkit.seed import SeededKey
from juinie_testkit.stack import Stack
from juinie_testkit.waits import await_outbox_flush, eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def juinie(stack: Stack, key: SeededKey) -> AsyncGenerator[Client]:
    async with Client(stack.api.url, [gateway.url for gateway in stack.gateways], key.text) as client:
        yield client


async def finished_run(juinie: Client) -> str:
    run_id = (await juinie.create_run("agent", input={"n": 1}))["run_id"]
    await juinie.append(run_id, ("token", {"text": "Hel"}), ("token", {"text": "lo\u0000"}))
    await juinie.finish(run_id, output={"answer": 42})
    return run_id


async def verify(stack: Stack, key: SeededKey, run_id: str, *more: str) -> tuple[int | None, str]:
    """Run `juinie verify` as a user does. Gives its exit code and what it printed."""
    environment = {
        **os.environ, "JUINIE_API_URL": stack.api.url, "JUINIE_STREAM_URL": stack.gateway.url,
        "JUINIE_API_KEY": key.text, "COLUMNS": "200",
    }  # fmt: skip
    command = [
        sys.executable,
        "-c",
        "from juinie.cli import main; main()",
        "verify",
        run_id,
        "--wait-seconds",
        "15",
    ]
    process = await asyncio.create_subprocess_exec(*command, *more, env=environment, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(60):
        printed, faults = await process.communicate()
    return process.returncode, (printed + faults).decode()


async def test_client_streams_a_run_through_a_gateway_that_is_killed(stack: Stack, juinie: Client):
    run_id = (await juinie.create_run("agent"))["run_id"]
    seen: list[int] = []

    async def watch() -> None:
        async for event in juinie.stream(run_id):
            seen.append(event.seq)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await juinie.append(run_id, ("token", 1))
        await eventually(lambda: seen == [1, 2, 3], 20, "the first three events")
        await stack.gateway.kill()
        await juinie.append(run_id, ("token", 2), ("token", 3))
        await stack.gateway.start()
        await juinie.finish(run_id)
    assert seen == [1, 2, 3, 4, 5, 6]
    with pytest.raises(RunFinished):
        await juinie.append(run_id, ("token", 4))


async def test_whole_run_is_verified_in_all_places(stack: Stack, key: SeededKey, juinie: Client):
    run_id = await finished_run(juinie)
    kafka = ("--kafka", stack.kafka_bootstrap_servers, "--topic", stack.kafka_topic)
    code, printed = await verify(stack, key, run_id, *kafka, "--database-url", stack.database_url)

    assert code == 0, printed
    for line in ("pages", "stream", "kafka", "postgres", "The run is whole."):
        assert line in printed


async def test_open_run_is_verified_as_far_as_it_is(stack: Stack, key: SeededKey, juinie: Client):
    run_id = (await juinie.create_run("agent"))["run_id"]
    await juinie.append(run_id, ("token", 1))
    code, printed = await verify(stack, key, run_id)

    assert (code, "open: running" in printed) == (0, True), printed


async def test_row_that_was_changed_by_hand_is_found(
    stack: Stack, stack_pool: Pool, key: SeededKey, juinie: Client
):
    run_id = await finished_run(juinie)
    await await_outbox_flush(stack_pool, run_id)
    async with stack_pool.connection() as connection:
        await connection.execute("UPDATE run_event SET data = '7' WHERE run_id = $1 AND seq = 3", run_id)
    kafka = ("--kafka", stack.kafka_bootstrap_servers, "--topic", stack.kafka_topic)
    code, printed = await verify(stack, key, run_id, *kafka)

    assert code == 1
    assert "the record of seq 3 has other bytes" in printed


async def test_event_that_is_gone_from_postgres_is_found(
    stack: Stack, stack_pool: Pool, key: SeededKey, juinie: Client
):
    run_id = await finished_run(juinie)
    async with stack_pool.connection() as connection:
        await connection.execute("DELETE FROM run_event WHERE run_id = $1 AND seq = 3", run_id)
    code, printed = await verify(stack, key, run_id, "--wait-seconds", "3")

    assert code == 1
    assert "seq 4 stands where 3 should" in printed


async def test_record_under_the_runs_key_that_is_none_of_it_is_found(
    stack: Stack, stack_pool: Pool, key: SeededKey, juinie: Client
):
    run_id = await finished_run(juinie)
    await await_outbox_flush(stack_pool, run_id)
    await produce_raw(stack.kafka_bootstrap_servers, stack.kafka_topic, run_id.encode(), b"rubbish")
    code, printed = await verify(
        stack, key, run_id, "--kafka", stack.kafka_bootstrap_servers, "--topic", stack.kafka_topic
    )

    assert code == 1
    assert "is no event of the run" in printed


async def put_by_hand(stack: Stack, run_id: str, topic: str, *seqs: int, **configs: str) -> None:
    """The run's records, of these seqs, in this order, on a topic of their own, of this configuration."""

    def ours(records: list[Record]) -> list[Record]:
        return [record for record in records if record.key == run_id.encode()]

    servers = stack.kafka_bootstrap_servers
    records = ours(await read_topic(servers, stack.kafka_topic, lambda records: len(ours(records)) >= 5))
    await create_topic(servers, topic, **configs)
    for seq in seqs:
        record = next(record for record in records if record.value.startswith(b'{"seq":%d,' % seq))
        await produce_raw(servers, topic, record.key, record.value, record.headers)


async def test_disorder_on_kafka_is_found_and_a_dead_letter_that_came_late_is_none(
    stack: Stack, key: SeededKey, juinie: Client
):
    run_id = await finished_run(juinie)
    topic, dead = f"verify-{run_id}", f"verify-{run_id}-dead"
    await put_by_hand(stack, run_id, topic, 1, 2, 4, 3, 5)
    kafka = ("--kafka", stack.kafka_bootstrap_servers, "--topic", topic, "--dead-letter-topic", dead)
    code, printed = await verify(stack, key, run_id, *kafka)

    assert (code, "seq 3 came first after 4" in printed) == (1, True), printed

    await put_by_hand(stack, run_id, dead, 3)
    code, printed = await verify(stack, key, run_id, *kafka)

    assert (code, "seq 3 came first after 4: a dead letter" in printed) == (0, True), printed


async def remove(stack: Stack, topic: str, before_offset: int) -> None:
    """Before this offset of the first partition, as retention does."""
    async with admin_of(stack.kafka_bootstrap_servers) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=before_offset)})


async def test_what_kafka_keeps_no_more_is_told_and_no_fault(stack: Stack, key: SeededKey, juinie: Client):
    run_id = await finished_run(juinie)
    topic = f"verify-{run_id}"
    await put_by_hand(stack, run_id, topic, 1, 2, 3, 4, 5, retention_ms="1")
    await remove(stack, topic, before_offset=2)
    code, printed = await verify(
        stack, key, run_id, "--kafka", stack.kafka_bootstrap_servers, "--topic", topic
    )

    assert (code, "seq 2 is missing: older than what Kafka keeps" in printed) == (0, True), printed


async def test_partition_that_is_empty_by_now_excuses_no_run_that_is_younger_than_retention(
    stack: Stack, key: SeededKey, juinie: Client
):
    run_id = await finished_run(juinie)
    topic = f"verify-{run_id}"
    await put_by_hand(stack, run_id, topic, 1, 2, 3, 4, 5)
    await remove(stack, topic, before_offset=5)
    kafka = ("--kafka", stack.kafka_bootstrap_servers, "--topic", topic, "--wait-seconds", "1")
    code, printed = await verify(stack, key, run_id, *kafka)

    assert (code, "seq 1 is missing" in printed) == (1, True), printed


async def test_run_of_which_no_event_is_kept_is_whole(
    stack: Stack, stack_pool: Pool, key: SeededKey, juinie: Client
):
    run_id = await finished_run(juinie)
    await await_outbox_flush(stack_pool, run_id)
    async with stack_pool.connection() as connection, connection.transaction():
        await connection.execute("DELETE FROM run_event WHERE run_id = $1", run_id)
        await connection.execute("UPDATE run SET retained_from_seq = last_seq + 1 WHERE run_id = $1", run_id)
    kafka = ("--kafka", stack.kafka_bootstrap_servers, "--topic", stack.kafka_topic)
    code, printed = await verify(stack, key, run_id, *kafka, "--database-url", stack.database_url)

    assert (code, "none of its events is kept" in printed) == (0, True), printed


async def test_row_behind_the_end_is_found(stack: Stack, stack_pool: Pool, key: SeededKey, juinie: Client):
    run_id = await finished_run(juinie)
    async with stack_pool.connection() as connection:
        await connection.execute(
            "INSERT INTO run_event (run_id, seq, type, data, occurred_at)"
            " SELECT run_id, seq + 1, 'token', '1', occurred_at FROM run_event WHERE run_id = $1 AND seq = 5",
            run_id,
        )
    code, printed = await verify(
        stack, key, run_id, "--database-url", stack.database_url, "--wait-seconds", "3"
    )

    assert (code, "6 rows, not 5" in printed) == (1, True), printed


async def test_run_that_does_not_exist_cannot_be_verified(stack: Stack, key: SeededKey):
    code, printed = await verify(stack, key, "0193a1f2-7c3e-7d4b-9a55-0c6a2f1e8b70")

    assert (code, "404 run_not_found" in printed) == (2, True), printed


async def test_deployment_that_is_not_there_cannot_be_verified(stack: Stack, key: SeededKey, juinie: Client):
    run_id = await finished_run(juinie)
    code, printed = await verify(stack, key, run_id, "--api-url", "http://127.0.0.1:1", "--wait-seconds", "1")

    assert (code, "no answer from http://127.0.0.1:1: ConnectError" in printed) == (2, True), printed


async def test_kafka_that_is_not_there_cannot_be_verified(stack: Stack, key: SeededKey, juinie: Client):
    run_id = await finished_run(juinie)
    code, printed = await verify(stack, key, run_id, "--kafka", "127.0.0.1:1")

    assert (code, "no answer from Kafka at 127.0.0.1:1: " in printed) == (2, True), printed
    assert "Unable connect" not in printed, "the driver's own words are left out"


async def test_postgres_that_is_not_there_cannot_be_verified(stack: Stack, key: SeededKey, juinie: Client):
    run_id = await finished_run(juinie)
    code, printed = await verify(
        stack, key, run_id, "--database-url", "postgresql://juinie@127.0.0.1:1/juinie"
    )

    assert (code, "no answer from Postgres: " in printed) == (2, True), printed
    assert "Traceback" not in printed


async def torture(stack: Stack, key: SeededKey, *arguments: str) -> tuple[int | None, str]:
    """Run `juinie torture` as a user does. Gives its exit code and what it printed."""
    environment = {
        **os.environ, "JUINIE_API_URL": stack.api.url, "JUINIE_STREAM_URL": stack.gateway.url,
        "JUINIE_API_KEY": key.text, "COLUMNS": "200",
    }  # fmt: skip
    command = [
        sys.executable,
        "-c",
        "from juinie.cli import main; main()",
        "torture",
        "--seed",
        "1",
        *arguments,
    ]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(240):
        printed, faults = await process.communicate()
    return process.returncode, (printed + faults).decode()


async def test_torture_with_a_fault_of_ones_own_finds_nothing(stack: Stack, key: SeededKey, tmp_path: Path):
    mark = tmp_path / "mark"
    code, printed = await torture(
        stack, key, "--seconds", "8", "--rate", "100", "--runs", "2", "--no-lines", "--fault-seconds", "1",
        "--fault", f"marked=echo injected >> {mark}", "--heal", f"marked=echo healed >> {mark}",
    )  # fmt: skip

    assert (code, "Nothing was found." in printed) == (0, True), printed
    assert mark.read_text().splitlines()[:2] == ["injected", "healed"]


async def test_torture_whose_command_fails_says_so(stack: Stack, key: SeededKey):
    code, printed = await torture(
        stack, key, "--seconds", "5", "--rate", "50", "--no-lines", "--fault", "bad=exit 3"
    )

    assert (code, "exit code 3 from: exit 3" in printed) == (2, True), printed


async def test_reconnects_at_random_positions_bring_exactly_what_follows(stack: Stack, key: SeededKey):
    code, printed = await torture(stack, key, "--reconnects", "300")

    assert (code, "Nothing was found." in printed) == (0, True), printed
