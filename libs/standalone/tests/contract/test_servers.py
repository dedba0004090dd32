"""The real servers: started, used, killed, started again with what they had, as root and as an ordinary user."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from juinie_standalone.cache import cache_dir
from juinie_standalone.errors import StandaloneError
from juinie_standalone.ports import is_free
from juinie_standalone.servers import EmbeddedKafka, EmbeddedPostgres
from juinie_standalone.users import unprivileged

BOTH = """
from pathlib import Path
from juinie_standalone.servers import EmbeddedKafka, EmbeddedPostgres
import os, sys
for server in (EmbeddedPostgres(Path(sys.argv[1]) / "postgres", durable=False), EmbeddedKafka(Path(sys.argv[1]) / "kafka")):
    print(os.geteuid(), server.start().partition("@")[2])
    server.stop()
"""


@pytest.fixture
def postgres(tmp_path):
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False, dies_with_parent=True)
    yield server
    server.stop()


@pytest.fixture
def kafka(tmp_path):
    server = EmbeddedKafka(tmp_path / "kafka", dies_with_parent=True)
    yield server
    server.stop()


BUSY = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"
"""Never looks up from its work, so it does not notice that its server was killed."""


async def fetch(url, *statements):
    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetch(statement) for statement in statements]
    finally:
        await connection.close()


async def test_postgres_keeps_what_was_committed_and_its_port_over_a_sigkill(postgres, tmp_path):
    url = postgres.start()
    await fetch(url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)")
    postgres.kill()
    again = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    assert again.start() == url
    assert await fetch(url, "SELECT n FROM kept") == [[(1,)]]
    again.stop()
    assert is_free(again.port)
    assert not (tmp_path / "postgres" / "cluster" / "postmaster.pid").exists()


async def test_postgres_speaks_utf8_and_lets_nobody_in_without_its_password(postgres):
    url = postgres.start()
    collation = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
    assert await fetch(url, "SHOW server_encoding", collation) == [[("UTF8",)], [("C",)]]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url, password="guess")


async def test_a_second_postgres_on_the_same_data_is_refused(postgres, tmp_path):
    postgres.start()
    with pytest.raises(StandaloneError, match="Another Postgres"):
        EmbeddedPostgres(tmp_path / "postgres").start()


async def test_sessions_that_outlive_a_killed_postgres_are_waited_for(postgres, monkeypatch):
    monkeypatch.setattr("juinie_standalone.servers.postgres.STOP_SECONDS", 0.5)
    url = postgres.start()
    connection = await asyncpg.connect(url)
    session = await connection.fetchval("SELECT pg_backend_pid()")
    busy = asyncio.create_task(connection.execute(BUSY))
    observer = await asyncpg.connect(url)
    active = f"SELECT true FROM pg_stat_activity WHERE pid = {session} AND query = $1 AND state = 'active'"
    while not await observer.fetchval(active, BUSY):
        assert not busy.done()
    postgres.kill()
    try:
        with pytest.raises(StandaloneError, match="Sessions of a Postgres that was killed still run"):
            postgres.start()
    finally:
        os.kill(session, signal.SIGKILL)
        await asyncio.gather(busy, return_exceptions=True)
        connection.terminate()
        observer.terminate()
    monkeypatch.undo()
    assert await fetch(postgres.start(), "SELECT 1") == [[(1,)]]


def test_a_pid_file_with_nothing_in_it_is_no_obstacle(postgres, tmp_path):
    postgres.start()
    postgres.stop()
    (tmp_path / "postgres" / "cluster" / "postmaster.pid").touch()
    assert postgres.start()


def test_postgres_whose_making_broke_off_is_made_afresh(postgres, tmp_path):
    (tmp_path / "postgres" / "cluster.new").mkdir(parents=True)
    (tmp_path / "postgres" / "cluster.new" / "half").touch()
    assert postgres.start().startswith("postgresql://juinie:")


async def test_kafka_keeps_its_topics_and_its_port_over_a_sigkill(kafka):
    bootstrap = kafka.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("kept", 3, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait("kept", b"value", key=b"key")
    kafka.kill()
    assert kafka.start() == bootstrap
    async with AIOKafkaConsumer(
        "kept", bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        assert (await consumer.getone()).value == b"value"


def test_both_run_for_an_ordinary_user():
    """As root, the test itself becomes one: a user who owns nothing but a directory."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        user = unprivileged(
            Path(sys.executable).resolve(), cache_dir() / "any", owner_of=Path(directory) / "none"
        )
        if user is not None:
            os.chown(directory, user.uid, user.gid)
        plain = user if user and not user.prefix else None
        done = subprocess.run(
            [*(user.prefix if user else ()), sys.executable, "-c", BOTH, directory],
            check=False, capture_output=True, text=True, cwd="/",
            env=os.environ | {"JUINIE_CACHE_DIR": str(cache_dir()), "HOME": directory},
            user=plain.uid if plain else None, group=plain.gid if plain else None, extra_groups=[] if plain else None,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert not any(line.startswith("0 ") for line in lines)
