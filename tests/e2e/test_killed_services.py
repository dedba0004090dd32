"""kill -9 of any service in mid-run: every watcher still gets 1..n, each once, in order, and the end."""

import asyncio
import time
from contextlib import suppress
from uuid import UUID

import httpx
import pytest

from juinie.torture.proxy import BadLine, Mode
from juinie_shared.contracts.record import read_record
from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.follower import Follower
from juinie_testkit.kafka import Record, read_topic
from juinie_testkit.proxy import Proxy
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import ServiceProcess, Stack
from juinie_testkit.waits import await_outbox_flush, await_stream_completion, eventually
from juinie_testkit.watcher import Watcher

pytestmark = pytest.mark.timeout(300)

PATIENTLY = 240
"""Seconds. Services start anew meanwhile, and a busy machine takes long for that."""

UP_SECONDS = 30
"""What is promised for all of them together."""


async def feed(api: ApiClient, run_id: str, appends: int) -> None:
    for number in range(appends):
        await api.append(run_id, ("token", number))


async def assert_all_was_seen_once(api: ApiClient, run_id: str, *followers: Follower) -> None:
    last_seq = (await api.get(run_id))["last_seq"]
    for follower in followers:
        assert follower.seqs == list(range(1, last_seq + 1)), follower.describe()


async def test_publisher_killed_in_mid_run(stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey):
    run_id = (await api.create())["run_id"]
    follower = Follower([stack.gateway.url], run_id, key=key.text)
    async with asyncio.TaskGroup() as group:
        group.create_task(follower.follow(PATIENTLY))
        await feed(api, run_id, 10)
        await stack.publisher.kill()
        await feed(api, run_id, 10)  # nobody relays: these come from Postgres
        await eventually(lambda: len(follower.seqs) == 22, 15, "a watcher that goes on without a publisher")
        restarting = group.create_task(stack.publisher.start())
        await feed(api, run_id, 10)
        await api.finish(run_id)
        await restarting
    await assert_all_was_seen_once(api, run_id, follower)
    assert len(follower.watchers) == 1
    await await_outbox_flush(stack_pool, run_id)


async def test_publisher_killed_between_kafkas_ack_and_the_delete(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    """The line to Postgres holds back the delete: Kafka has the records, and the outbox has their row still."""
    run_id = (await api.create())["run_id"]
    await eventually(lambda: outbox_is_empty(stack_pool), 60, "an empty outbox")
    await stack.publisher.stop()
    async with (
        Proxy.before(stack.database_url) as line,
        Watcher(stack.gateway.url, run_id, key=key.text) as watcher,
    ):
        line.hang_at(b"DELETE FROM outbox")
        await feed(api, run_id, 5)
        dying = stack.publisher_through(line.url_through(stack.database_url))
        try:
            dying.launch()
            await eventually(lambda: line.hangs, PATIENTLY, "the publisher deletes")
            sent = await seqs_on_topic(stack, run_id, 2)
            assert not await outbox_is_empty(stack_pool)
            await dying.kill()
        finally:
            dying.end()
        line.cut()  # with all that it held back
        assert not await outbox_is_empty(stack_pool)
        await feed(api, run_id, 5)
        await stack.publisher.start()
        await api.finish(run_id)
        await await_stream_completion(watcher, timeout_seconds=PATIENTLY)
    await await_outbox_flush(stack_pool, run_id, PATIENTLY)
    last_seq = (await api.get(run_id))["last_seq"]
    all_sent = await seqs_on_topic(stack, run_id, last_seq)
    assert all_sent[: len(sent)] == sent
    assert all_sent.count(sent[-1]) > 1, "it came again"
    assert list(dict.fromkeys(all_sent)) == list(range(1, last_seq + 1)), "first times are in order"
    assert watcher.seqs == list(range(1, last_seq + 1))


async def outbox_is_empty(pool: Pool) -> bool:
    async with pool.connection() as connection:
        return await connection.fetchval("SELECT count(*) = 0 FROM outbox")


async def seqs_on_topic(stack: Stack, run_id: str, up_to_seq: int) -> list[int]:
    """The run's seqs in the order of their records, copies and all, once this one is among them."""

    def of(records: list[Record]) -> list[int]:
        events = [read_record(record.key, record.value, record.headers) for record in records]
        return [event.seq for event in events if str(event.run_id) == run_id]

    def has(records: list[Record]) -> bool:
        return up_to_seq in of(records)

    return of(await read_topic(stack.kafka_bootstrap_servers, stack.kafka_topic, has, 60))


async def test_gateway_killed_in_mid_run(stack: Stack, api: ApiClient, key: SeededKey):
    run_id = (await api.create())["run_id"]
    stays = Follower([stack.gateway.url], run_id, key=key.text)
    moves = Follower(
        [gateway.url for gateway in stack.gateways], run_id, token=await api.stream_token(run_id)
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(stays.follow(PATIENTLY))
        group.create_task(moves.follow(PATIENTLY))
        await feed(api, run_id, 5)
        await eventually(lambda: 7 in stays.seqs and 7 in moves.seqs, 15, "both watchers in mid-run")
        await stack.gateway.kill()
        feeding = group.create_task(feed(api, run_id, 20))
        await stack.gateway.start()
        await feeding
        await api.finish(run_id)
    await assert_all_was_seen_once(api, run_id, stays, moves)
    assert len(stays.watchers) > 1
    assert len(moves.watchers) > 1


async def test_api_killed_in_mid_append_and_retried_with_the_same_keys(
    stack: Stack, api: ApiClient, key: SeededKey
):
    """What was acknowledged is there; what was not is there once, whole, or not at all: the retry makes it once."""
    run_id = (await api.create())["run_id"]
    follower = Follower([stack.gateway.url], run_id, key=key.text)
    appends, answered = 40, asyncio.Event()

    async def append_until_answered(number: int) -> tuple[int, int]:
        """The same key until an answer comes."""
        while True:
            with suppress(httpx.TransportError):
                answer = await api.append(
                    run_id, ("a", number), ("b", number), idempotency_key=f"append-{number}"
                )
                answered.set()
                return answer["first_seq"], answer["last_seq"]
            await asyncio.sleep(0.05)  # as a client backs off

    async with asyncio.TaskGroup() as group:
        group.create_task(follower.follow(PATIENTLY))
        appending = [group.create_task(append_until_answered(number)) for number in range(appends)]
        await answered.wait()
        await stack.api.kill()
        await stack.api.start()
        ranges = await asyncio.gather(*appending)
        await api.finish(run_id)
    assert sorted(ranges) == [(first, first + 1) for first in range(3, 3 + 2 * appends, 2)]
    await assert_all_was_seen_once(api, run_id, follower)
    data = [(frame.json["type"], frame.json["data"]) for frame in follower.events[2:-1]]
    assert sorted(data) == sorted((name, number) for number in range(appends) for name in ("a", "b"))
    for number, (first, last) in enumerate(ranges):
        assert data[first - 3 : last - 2] == [("a", number), ("b", number)]


async def test_api_killed_between_the_commit_and_its_answer(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    """The line brings the request and not the answer: to its client, an api killed then has said nothing."""
    run_id = (await api.create())["run_id"]
    events = (("a", 1), ("b", 2))
    async with BadLine("127.0.0.1", stack.api.port) as line:
        line.set(Mode.ONE_WAY)
        async with ApiClient(f"http://127.0.0.1:{line.port}", key.text, timeout_seconds=60) as deaf:
            unanswered = asyncio.create_task(deaf.append(run_id, *events, idempotency_key="once"))
            await eventually(lambda: stored(stack_pool, run_id, 4), 20, "the commit")
            await stack.api.kill()
            line.cut()
            with pytest.raises(httpx.TransportError):
                await unanswered
    await stack.api.start()

    assert await stored(stack_pool, run_id, 4)
    again = await api.append(run_id, *events, idempotency_key="once")
    assert (again["first_seq"], again["last_seq"]) == (3, 4)
    assert [event["type"] for event in await api.events(run_id)] == ["run.created", "run.started", "a", "b"]


async def stored(pool: Pool, run_id: str, last_seq: int) -> bool:
    """Whether the run's last seq in Postgres is this."""
    async with pool.connection() as connection:
        return await connection.fetchval("SELECT last_seq FROM run WHERE run_id = $1", run_id) == last_seq


async def test_gateway_restarted_while_the_last_event_is_on_its_way(
    stack: Stack, api: ApiClient, key: SeededKey
):
    """The end is in Postgres, and nowhere else yet, when the gateway goes."""
    run_id = (await api.create())["run_id"]
    follower = Follower([stack.gateway.url], run_id, key=key.text)
    async with asyncio.TaskGroup() as group:
        group.create_task(follower.follow(PATIENTLY))
        await feed(api, run_id, 3)
        await eventually(lambda: len(follower.seqs) == 5, 15, "all events so far")
        stack.publisher.freeze()
        finishing = group.create_task(api.finish(run_id))
        await stack.gateway.restart()
        await finishing
        stack.publisher.thaw()
    await assert_all_was_seen_once(api, run_id, follower)


async def test_stopped_gateway_sends_its_watchers_away_and_exits_with_0(
    stack: Stack, api: ApiClient, key: SeededKey
):
    run_id = (await api.create())["run_id"]
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        assert await stack.gateway.stop(timeout_seconds=10) == 0
        await watcher.until_closed(5)
    assert watcher.state == "cut"
    assert watcher.controls[-1].event == "stream.reconnect"
    assert watcher.controls[-1].json == {"reason": "draining"}


async def crash_in_a_loop(service: ServiceProcess, while_it_does: asyncio.Task[None]) -> int:
    """Kill a service again and again, for as long as something else goes on, and five times at least.

    By turns before it has begun to come up, and when Postgres and Kafka have it.
    """
    crashes = 0
    while crashes < 5 or not while_it_does.done():
        await service.kill()
        service.launch()
        crashes += 1
        if crashes % 2:
            await service.until_ready()
        await asyncio.sleep(0)
    return crashes


@pytest.mark.parametrize("crashing", ["publisher", "gateway-2"])
async def test_service_that_crashes_again_and_again_leaves_the_others_alone(
    stack: Stack, api: ApiClient, key: SeededKey, crashing: str
):
    service = next(service for service in stack.services if service.name == crashing)
    others = [(other, other.pid) for other in stack.services if other is not service]
    run_id = (await api.create())["run_id"]
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        feeding = asyncio.create_task(feed(api, run_id, 50))
        await crash_in_a_loop(service, feeding)
        await feeding
        await watcher.until_seq(52)
        await api.finish(run_id)
        await await_stream_completion(watcher)
    assert watcher.seqs == list(range(1, 54))
    assert [(other.running, other.pid) for other, _ in others] == [(True, pid) for _, pid in others]
    await service.start()


async def test_api_that_crashes_again_and_again_leaves_open_streams_alone(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey
):
    run_id = (await api.create())["run_id"]
    seed = Seed(stack_pool, notify=True)
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        await crash_in_a_loop(stack.api, asyncio.create_task(append_by_hand(seed, run_id)))
        await watcher.until_seq(21)
        await stack.api.start()
        await api.finish(run_id)
        await await_stream_completion(watcher)
    last_seq = (await api.get(run_id))["last_seq"]
    assert watcher.seqs == list(range(1, last_seq + 1))
    assert watcher.state == "ended"


async def append_by_hand(seed: Seed, run_id: str) -> None:
    """As another api would."""
    for number in range(20):
        await seed.append(UUID(run_id), ("by hand", number))


@pytest.mark.parametrize("turned", [False, True], ids=["as they are listed", "the other way round"])
async def test_all_services_killed_at_once_come_back_in_either_order(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey, turned: bool
):
    run_id = (await api.create())["run_id"]
    follower = Follower([gateway.url for gateway in stack.gateways], run_id, key=key.text)
    async with asyncio.TaskGroup() as group:
        group.create_task(follower.follow(PATIENTLY))
        await feed(api, run_id, 5)
        await asyncio.gather(*(service.kill() for service in stack.services))
        until = time.monotonic() + UP_SECONDS
        for service in sorted(stack.services, key=stack.services.index, reverse=turned):
            service.launch()
            await service.until_ready(until - time.monotonic())  # with those behind it still dead
        await feed(api, run_id, 5)
        await api.finish(run_id)
    await assert_all_was_seen_once(api, run_id, follower)
    await await_outbox_flush(stack_pool, run_id)
