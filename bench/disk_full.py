"""A disk that is really full: Postgres' tables on a tiny tmpfs (needs root, to mount it). Appends 503, reads go on, and it recovers.

    JUINIE_TEST_BACKING=embedded .venv/bin/pytest -s bench/disk_full.py

The test suite has the same from what Postgres says then (SQLSTATE 53100): `test_database_away.py`.
"""

import os
import secrets
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from juinie_api.app import serve
from juinie_api.settings import Settings
from juinie_shared.db.pool import Pool
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.running import running
from juinie_testkit.seed import Seed

driver: Any = asyncpg
"""It has no types."""

TABLES = ("run_event", "run", "outbox")
BALLAST = "INSERT INTO ballast SELECT repeat('x', 7000) FROM generate_series(1, $1)"


@pytest.fixture
def small_disk() -> Generator[Path]:
    """16 MiB that the server may write to."""
    place = Path(tempfile.mkdtemp(prefix="juinie-small-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=1777", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    place.rmdir()


def owner_of(directory: str) -> int:
    return Path(directory).stat().st_uid


async def test_full_disk_refuses_appends_alone_and_is_got_over(
    small_disk: Path, database_url: str, pool: Pool
) -> None:
    directory = small_disk / "tablespace"
    directory.mkdir(mode=0o700)
    admin = await driver.connect(database_url)
    owner = owner_of(await admin.fetchval("SHOW data_directory"))
    os.chown(directory, owner, owner)
    name = f"small_{os.getpid()}"
    await admin.execute(f"CREATE TABLESPACE {name} LOCATION '{directory}'")
    for table in TABLES:
        await admin.execute(f"ALTER TABLE {table} SET TABLESPACE {name}")
    await admin.execute(f"CREATE TABLE ballast (data text) TABLESPACE {name}")
    await admin.execute("ALTER TABLE ballast ALTER data SET STORAGE PLAIN")

    key = await Seed(pool).key()
    settings = Settings.model_validate(
        {"database_url": database_url, "env": "test", "port": 0, "stream_token_keys": SIGNING_KEYS}
    )
    async with (
        running(serve, settings) as service,
        httpx.AsyncClient(
            base_url=service.url, headers={"Authorization": f"Bearer {key.text}"}, trust_env=False, timeout=60
        ) as client,
    ):
        path = f"/v1/runs/{(await client.post('/v1/runs', json={'agent': 'a'})).json()['run_id']}/events"
        event = {"events": [{"type": "x", "data": secrets.token_hex(3500)}]}
        assert (await client.post(path, json=event)).status_code == 201
        for rows in (100, 1):
            with suppress(asyncpg.DiskFullError):
                while True:
                    await admin.execute(BALLAST, rows)
        statuses = [(await client.post(path, json=event)).status_code for _ in range(40)]
        refused = statuses.count(503)
        read = await client.get(path, params={"limit": 1000})
        await admin.execute("DROP TABLE ballast")
        after = [(await client.post(path, json=event)).status_code for _ in range(10)]
        seqs = [event["seq"] for event in (await client.get(path, params={"limit": 1000})).json()["events"]]

    print(
        f"full: {refused} of 40 appends 503, others {set(statuses) - {503}}, read {read.status_code}; then {set(after)}"
    )
    assert set(statuses) <= {201, 503}
    assert refused > 0
    assert read.status_code == 200
    assert set(after) == {201}
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) == 3 + statuses.count(201) + len(after)
    for table in TABLES:
        await admin.execute(f"ALTER TABLE {table} SET TABLESPACE pg_default")
    await admin.execute(f"DROP TABLESPACE {name}")
    await admin.close()
