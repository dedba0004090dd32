"""How a stream's connection ends: cleanly after `stream.end` alone, and never later than it must."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from juinie_shared.contracts.stream_tokens import StreamTokenSigner
from juinie_shared.db.keys import revoke_key
from juinie_shared.db.pool import Pool
from juinie_stream_gateway.app import serve
from juinie_stream_gateway.edges import admit
from juinie_stream_gateway.settings import Settings
from juinie_testkit.proxy import Proxy
from juinie_testkit.raw_stream import LAST_CHUNK, raw_stream
from juinie_testkit.running import RunningService, running
from juinie_testkit.scrape import until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import await_stream_completion, eventually
from juinie_testkit.watcher import Watcher


async def nobody_left(service: RunningService) -> None:
    await until_metric(service.url, "juinie_streams_open", 0, 15)


async def test_the_last_chunk_comes_after_the_end(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key, status="success")
    async with raw_stream(gateway.port, run_id, key.text) as client:
        await client.read_until(LAST_CHUNK)
    assert b"event: stream.end" in client.received


async def test_a_deleted_run_sends_its_watchers_away_without_a_last_chunk(
    gateway: RunningService, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    async with raw_stream(gateway.port, run_id, key.text) as client:
        await client.read_until(b"stream.caught_up")
        await seed.delete(run_id)
        received = await client.read_all()
    assert b'event: stream.reconnect\ndata: {"reason":"deleted"}\n\n' in received
    assert LAST_CHUNK not in received
    await nobody_left(gateway)


@pytest.mark.usefixtures("topic")
async def test_a_revoked_key_ends_its_open_streams(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey, pool: Pool
) -> None:
    other = await seed.key()
    async with running(serve, settings_with(credential_check_seconds=0.1)) as service:
        run_id = await seed.run(key)
        async with (
            raw_stream(service.port, run_id, key.text) as client,
            Watcher(service.url, run_id, key=other.text) as watcher,
        ):
            await client.read_until(b"stream.caught_up")
            async with pool.connection() as connection:
                await revoke_key(connection, key.key_id)
            received = await client.read_all()
            assert b'event: stream.reconnect\ndata: {"reason":"credential"}\n\n' in received
            assert LAST_CHUNK not in received
            async with Watcher(service.url, run_id, key=key.text) as returned:
                assert returned.status == 401
            await seed.finish(run_id)
            await await_stream_completion(watcher)


async def test_a_stream_ends_when_its_token_does(
    gateway: RunningService, seed: Seed, key: SeededKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admit, "LEEWAY_SECONDS", 0)
    run_id = await seed.run(key)
    signer = StreamTokenSigner({"test": "juinie-testkit-signing-key-0123456789"})
    token, _ = signer.sign(run_id, key.tenant_id, key.key_id, 6)
    async with Watcher(gateway.url, run_id, token=token) as watcher:
        await watcher.until_closed(40)
    assert watcher.state == "cut"
    assert watcher.control("stream.reconnect") == {"reason": "credential"}


@pytest.mark.usefixtures("topic")
async def test_too_many_streams_are_sent_away_as_a_passing_state(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    async with running(serve, settings_with(max_streams=1)) as service:
        run_id = await seed.run(key)
        async with Watcher(service.url, run_id, key=key.text) as first:
            await first.until_caught_up()
            async with raw_stream(service.port, run_id, key.text) as second:
                received = await second.read_all()
            assert received.startswith(b"HTTP/1.1 200 OK")
            assert b'event: stream.reconnect\ndata: {"reason":"too_many_streams"}\n\n' in received
            assert LAST_CHUNK not in received
        await nobody_left(service)
        async with Watcher(service.url, run_id, key=key.text) as third:
            await third.until_caught_up()


async def test_without_a_database_clients_are_told_to_come_back(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    settings = settings_with(database_url="postgresql://nobody@127.0.0.1:9/none")
    async with running(serve, settings, wait_ready=False) as service:
        async with raw_stream(service.port, await seed.run(key), key.text) as client:
            received = await client.read_all()
        async with httpx.AsyncClient(trust_env=False) as http:
            ready = await http.get(f"{service.url}/readyz")
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b'event: stream.reconnect\ndata: {"reason":"database_unavailable"}\n\n' in received
    assert LAST_CHUNK not in received
    assert ready.status_code == 503


async def test_a_schema_that_is_behind_makes_it_wait(
    settings_with: Callable[..., Settings], empty_database_url: str
) -> None:
    async with running(serve, settings_with(database_url=empty_database_url), wait_ready=False) as service:

        async def says_so() -> bool:
            async with httpx.AsyncClient(trust_env=False) as http:
                return "juinie-api migrate" in (await http.get(f"{service.url}/readyz")).text

        await eventually(says_so, 10, "the probe says what to run")


@pytest.mark.usefixtures("topic")
async def test_who_comes_at_the_last_call_is_sent_away_whatever_the_database_does(
    settings_with: Callable[..., Settings], database_url: str, seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    async with Proxy.before(database_url) as proxy:
        settings = settings_with(database_url=proxy.url_through(database_url), last_call_seconds=2)
        async with running(serve, settings) as service:
            proxy.hang()
            stopping = asyncio.create_task(service.stop(timeout_seconds=20))
            await asyncio.sleep(0)
            async with raw_stream(service.port, run_id, key.text) as client:
                received = await client.read_all()
            await stopping
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b'event: stream.reconnect\ndata: {"reason":"draining"}\n\n' in received
    assert LAST_CHUNK not in received


@pytest.mark.usefixtures("topic")
async def test_stopping_sends_all_away_in_time_whoever_does_not_read(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    for _ in range(40):
        await seed.append(run_id, *[("text", "x" * 60_000) for _ in range(10)])
    quiet = await seed.run(key)
    async with (
        running(serve, settings_with()) as service,
        raw_stream(service.port, run_id, key.text, receive_buffer=4096) as deaf,
        raw_stream(service.port, run_id, key.text, receive_buffer=4096),
        raw_stream(service.port, quiet, key.text) as listening,
    ):
        await deaf.read_until(b"run.created")
        await listening.read_until(b"stream.caught_up")
        await service.stop(timeout_seconds=10)
        received = await listening.read_all()
    assert b'event: stream.reconnect\ndata: {"reason":"draining"}\n\n' in received
    assert LAST_CHUNK not in received


@pytest.mark.usefixtures("topic")
async def test_a_watcher_that_reads_nothing_is_cut_and_costs_others_nothing(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    run_id = await seed.run(key)
    for _ in range(40):
        await seed.append(run_id, *[("text", "x" * 60_000) for _ in range(10)])
    async with (
        running(serve, settings_with(stream_slow_seconds=0.5)) as service,
        raw_stream(service.port, run_id, key.text, receive_buffer=4096) as deaf,
        Watcher(service.url, run_id, key=key.text) as watcher,
    ):
        await deaf.read_until(b"run.created")
        end = await seed.finish(run_id)
        await await_stream_completion(watcher)
        assert watcher.seqs == list(range(1, end + 1))
        await nobody_left(service)
        assert LAST_CHUNK not in await deaf.read_all()


async def test_a_watcher_that_stops_reading_for_a_while_misses_nothing(
    topic, settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    async with running(
        serve, settings_with(stream_buffer_bytes=64 * 1024, recent_bytes=1024 * 1024)
    ) as service:
        run_id = await seed.run(key)
        async with raw_stream(service.port, run_id, key.text, receive_buffer=4096) as client:
            await client.read_until(b"stream.caught_up")
            for _ in range(20):  # far more than the socket's, the gateway's and the run's buffers hold
                first, last = await seed.append(run_id, *[("text", "x" * 40_000) for _ in range(8)])
                await topic.publish(run_id, first, last)
            end = await seed.finish(run_id)
            await client.read_until(LAST_CHUNK)
        ids = [int(line[4:]) for line in client.received.split(b"\n") if line.startswith(b"id: ")]
        assert ids == list(range(1, end + 1))


@pytest.mark.usefixtures("topic")
async def test_silence_is_broken_by_a_comment(
    settings_with: Callable[..., Settings], seed: Seed, key: SeededKey
) -> None:
    async with running(serve, settings_with(stream_heartbeat_seconds=0.2)) as service:
        async with Watcher(service.url, await seed.run(key), key=key.text) as watcher:
            await watcher.until(lambda seen: [frame.comment for frame in seen.frames].count("") >= 3, 10)
        assert watcher.seqs == [1]
