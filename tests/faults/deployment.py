"""The whole of Juinie, twice: two of each service, Postgres and Kafka, and a line that can be made bad between each pair.

    client ── api-1, api-2 ──────────────── Postgres
    client ── gateway-1, gateway-2 ──────── Postgres, Kafka
              publisher-1, publisher-2 ──── Postgres, Kafka

Every service has lines of its own to Postgres. Kafka tells its clients where to come back to, so it has one door, and one
line, for the publishers and one for the gateways.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from juinie.client import Client
from juinie.torture.answers import Answers
from juinie.torture.proxy import BadLine
from juinie_shared.db.migrate import migrate
from juinie_shared.db.pool import open_pool
from juinie_standalone.servers.kafka import Door, EmbeddedKafka
from juinie_standalone.servers.postgres import EmbeddedPostgres
from juinie_testkit.backing.docker import free_port
from juinie_testkit.kafka import create_topic
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.seed import Seed
from juinie_testkit.stack import ServiceProcess

HOST = "127.0.0.1"
TOPIC = "juinie.run-events"
PARTITIONS = 3
START_SECONDS = 300
MODULES = {
    "api": ("juinie_api", "JUINIE_API_PORT"),
    "publisher": ("juinie_publisher", "JUINIE_PUBLISHER_PORT"),
    "gateway": ("juinie_stream_gateway", "JUINIE_STREAM_PORT"),
}


class Deployment:
    """Use as `async with`. Its directory, with all logs, is removed at the end unless `keep` was set."""

    def __init__(self, late_seconds: float | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="juinie-faults-"))
        self.directory.chmod(0o755)  # Postgres runs as another user where we are root
        self.keep = False
        self.answers = Answers(late_seconds=late_seconds)
        self.topic_since = self.topic_grew_at = 0.0
        """When the topic was made again last, and when it grew last: records from before are gone, or in no order."""
        self.postgres = EmbeddedPostgres(self.directory / "postgres", durable=False, dies_with_parent=True)
        self.services: dict[str, list[ServiceProcess]] = {name: [] for name in MODULES}
        self.lines: dict[str, list[BadLine]] = {}
        self._doors = {name: free_port() for name in ("publisher", "gateway")}
        self._opened = AsyncExitStack()
        # Servers die with the thread that started them, so there is one that lives as long as we do.
        self._starter = ThreadPoolExecutor(1)

    @property
    def all_services(self) -> list[ServiceProcess]:
        return [service for kind in self.services.values() for service in kind]

    async def aside(self, act: Callable[[], object]) -> None:
        """Start or stop a server, without holding up the loop."""
        await asyncio.get_running_loop().run_in_executor(self._starter, act)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for service in self.all_services:
            if service.running:
                service.thaw()
        await asyncio.gather(*map(_ended, self.all_services))
        await self._opened.aclose()
        await self.aside(self.postgres.stop)
        if hasattr(self, "kafka"):
            await self.aside(self.kafka.stop)
        self._starter.shutdown()
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    async def _start(self) -> None:
        kafka_lines = {name: await self._line(f"{name}-kafka", port) for name, port in self._doors.items()}
        doors = [Door(name.upper(), self._doors[name], line.port) for name, line in kafka_lines.items()]
        self.kafka = EmbeddedKafka(self.directory / "kafka", dies_with_parent=True, doors=doors)
        await self.aside(self.postgres.start)
        await self.aside(self.kafka.start)
        await migrate(self.postgres.url)
        await create_topic(self.kafka.bootstrap, TOPIC, PARTITIONS)
        for name in MODULES:
            for number in (1, 2):
                await self._make_service(name, number, kafka_lines.get(name))
        for service in self.all_services:
            service.launch()
        for service in self.all_services:
            await service.until_ready(START_SECONDS)
        self.client = await self._opened.enter_async_context(await self._make_client())

    async def _make_service(self, kind: str, number: int, kafka_line: BadLine | None) -> None:
        module, port_setting = MODULES[kind]
        name, port = f"{kind}-{number}", free_port()
        database_line = await self._line(f"{kind}-postgres", self.postgres.port)
        kafka = f"{HOST}:{kafka_line.port}" if kafka_line else self.kafka.bootstrap
        environment = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("JUINIE_", "OTEL_"))
            },
            "DATABASE_URL": _through(self.postgres.url, database_line.port),
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "JUINIE_KAFKA_PARTITIONS": str(PARTITIONS),
            "JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS,
            "JUINIE_ENV": "test",
            "PYTHONUNBUFFERED": "1",
            port_setting: str(port),
        }
        self.services[kind].append(
            ServiceProcess(name, module, port, environment, self.directory / f"{name}.log")
        )

    async def _make_client(self) -> Client:
        """One with a key of its own, whose every way leads over a line."""
        pool = await open_pool(self.postgres.url, "faults")
        key = await Seed(pool).key(tenant="faults")
        await pool.close()
        self.tenant_id = key.tenant_id
        ways = {
            kind: [await self._line(f"client-{kind}", service.port) for service in self.services[kind]]
            for kind in ("api", "gateway")
        }
        return Client(
            _urls(ways["api"]),
            _urls(ways["gateway"]),
            key.text,
            retry_seconds=300,
            transport=self.answers.transport(),
        )

    async def _line(self, pair: str, port: int) -> BadLine:
        line = await self._opened.enter_async_context(BadLine(HOST, port))
        self.lines.setdefault(pair, []).append(line)
        return line


async def _ended(service: ServiceProcess) -> None:
    """One that takes too long has been killed, and said in its log why: that is no reason to leave the others."""
    with suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(service.end)


def _urls(lines: Sequence[BadLine]) -> list[str]:
    return [f"http://{HOST}:{line.port}" for line in lines]


def _through(database_url: str, port: int) -> str:
    parts = urlsplit(database_url)
    user, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}@{HOST}:{port}"))
