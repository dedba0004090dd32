"""Services as processes: what they exit with, however they are stopped and whatever is away."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from juinie_testkit.any_service import AnyService, ends_at_once
from juinie_testkit.stack import START_SECONDS, ServiceProcess
from juinie_testkit.waits import eventually

FORCED = 130
SECRET = "canary-5f2b"

pytestmark = pytest.mark.timeout(300)


async def until_alive(process: ServiceProcess) -> None:
    async with httpx.AsyncClient(base_url=process.url, trust_env=False, timeout=5) as client:

        async def alive() -> bool:
            try:
                return (await client.get("/livez")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(alive, START_SECONDS, f"{process.name} alive; its log: {process.tail()}")


def test_serving_imports_nothing_that_takes_long_and_is_not_needed(service: AnyService):
    """A start is mostly imports. Here are what only migrations use, and what only those use who export traces."""
    program = f"import sys, {service.module}.__main__, {service.module}.app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    slow = {"alembic", "google.protobuf", "requests", "sqlalchemy", "sqlmodel"}
    assert slow & set(loaded.stdout.split()) == set()


async def test_process_exits_with_0_while_postgres_and_kafka_are_away(service: AnyService, tmp_path: Path):
    process = service.process(tmp_path)
    process.launch()
    try:
        await until_alive(process)
        assert await process.stop(timeout_seconds=10) == 0, process.tail()
    finally:
        process.end()


async def test_faults_of_the_settings_end_it_soon_with_one_line(service: AnyService):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUINIE_", "DATABASE_", "KAFKA_"))
    }
    wrong = {service.port_setting: "x", "JUINIE_ENV": "moon", "KAFKA_BOOTSTRAP_SERVERS": SECRET}
    code, output, errors = await ends_at_once(service.module, environment=kept | wrong)
    assert (code, output, errors.count(b"\n")) == (1, b"", 1), errors
    assert all(name in errors.decode() for name in ("DATABASE_URL", service.port_setting, "JUINIE_ENV"))
    assert SECRET not in errors.decode()


async def test_second_signal_ends_a_process_that_still_drains(service: AnyService, tmp_path: Path):
    """The api and the gateway wait out their last call. The publisher, with nothing to send, is gone before."""
    process = service.process(tmp_path, JUINIE_LAST_CALL_SECONDS="60", JUINIE_DRAIN_SECONDS="60")
    process.launch()
    try:
        await until_alive(process)
        first = asyncio.create_task(process.stop(timeout_seconds=20))
        if service.name != "publisher":
            await until_draining(process)
            process._send(signal.SIGTERM)
        assert await first == (0 if service.name == "publisher" else FORCED)
    finally:
        process.end()


async def until_draining(process: ServiceProcess) -> None:
    async with httpx.AsyncClient(base_url=process.url, trust_env=False, timeout=5) as client:

        async def draining() -> bool:
            return (await client.get("/livez")).headers.get("connection") == "close"

        await eventually(draining, 20, "the last call")
