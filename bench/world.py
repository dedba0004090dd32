"""What is measured: Postgres and Kafka of its own, made as in production (durable), and processes of Juinie, which trace one request
in a hundred.

Everything listens on 127.0.0.1 and is gone at the end.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self
from uuid import UUID

from clocks import tree_seconds
from collector import collector

from juinie_shared.db.migrate import migrate
from juinie_shared.db.pool import Pool, open_pool
from juinie_standalone.servers.kafka import EmbeddedKafka
from juinie_standalone.servers.postgres import EmbeddedPostgres
from juinie_testkit.backing.docker import free_port
from juinie_testkit.kafka import create_topic
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import ServiceProcess

TOPIC = "juinie.run-events"
PARTITIONS = 3


class World:
    """Use as `async with`. `with_kafka`: there is a broker, too. `durable`: Postgres waits for its disk, as in production.
    `traced`: spans of one request in a hundred go to a collector.
    """

    def __init__(
        self,
        *,
        with_kafka: bool = False,
        durable: bool = True,
        partitions: int = PARTITIONS,
        traced: bool = True,
    ) -> None:
        self.partitions = partitions
        self.directory = Path(tempfile.mkdtemp(prefix="juinie-bench-"))
        self.directory.chmod(0o755)  # Postgres runs as another user where we are root
        self.postgres = EmbeddedPostgres(self.directory / "postgres", durable=durable, dies_with_parent=True)
        self.kafka = EmbeddedKafka(self.directory / "kafka", dies_with_parent=True) if with_kafka else None
        self._services: list[ServiceProcess] = []
        self._starter = ThreadPoolExecutor(1)  # servers die with the thread that started them
        self._open = AsyncExitStack()
        self._traced = traced
        self._traces: dict[str, str] = {}
        self.pool: Pool
        self.key: SeededKey

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for service in self._services:
            await asyncio.to_thread(service.end)
        await self._open.aclose()
        if hasattr(self, "pool"):
            await self.pool.close()
        await self._aside(self.postgres.stop)
        if self.kafka:
            await self._aside(self.kafka.stop)
        self._starter.shutdown()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def _start(self) -> None:
        if self._traced:
            self._traces = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": await self._open.enter_async_context(collector()),
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.01",
            }
        await self._aside(self.postgres.start)
        if self.kafka:
            await self._aside(self.kafka.start)
            await create_topic(self.kafka.bootstrap, TOPIC, self.partitions)
        await migrate(self.postgres.url)
        self.pool = await open_pool(self.postgres.url, "bench")
        self.key = await Seed(self.pool).key("bench")

    async def _aside(self, act: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._starter, act)

    async def runs(self, count: int, ids: Sequence[UUID] = ()) -> list[UUID]:
        """Runs that are running. `ids`: theirs, where it matters in which shards and partitions they lie."""
        seed = Seed(self.pool)
        return [await seed.run(self.key, run_id, status="running") for run_id in ids or [None] * count]

    async def service(
        self, module: str, port_setting: str, settings: Mapping[str, str] | None = None
    ) -> ServiceProcess:
        """A process of ours, ready."""
        port = free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("JUINIE_", "OTEL_"))},
            "DATABASE_URL": self.postgres.url,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap if self.kafka else "127.0.0.1:9",
            "JUINIE_KAFKA_PARTITIONS": str(self.partitions),
            "JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS,
            "JUINIE_STREAM_URL": "http://127.0.0.1:1",
            "JUINIE_ENV": "test",
            "JUINIE_LOG_LEVEL": "info",
            "JUINIE_LAST_CALL_SECONDS": "0",
            "PYTHONPATH": str(Path(__file__).parent),
            port_setting: str(port),
            **self._traces,
            **(settings or {}),
        }  # fmt: skip
        name = f"{module}-{len(self._services)}"
        service = ServiceProcess(name, module, port, environment, self.directory / f"{name}.log")
        self._services.append(service)
        await service.start()
        return service

    def database_cpu(self) -> float:
        """CPU seconds of all that Postgres runs, its background processes as well, and what has ended."""
        return tree_seconds(self.postgres_pid)

    @property
    def postgres_pid(self) -> int:
        return int((self.postgres.data_dir / "cluster" / "postmaster.pid").read_text().split()[0])

    @property
    def kafka_pid(self) -> int:
        assert self.kafka is not None
        assert self.kafka.child is not None
        return self.kafka.child.identity.pid

    async def wal_bytes(self) -> int:
        """How far the log of Postgres has come."""
        async with self.pool.connection() as connection:
            return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))

    async def quiet(self) -> None:
        """Leave nothing that was done before for the next to pay: rows are vacuumed, pages written."""
        async with self.pool.connection() as connection:
            await connection.execute("DELETE FROM outbox")
            await connection.execute("VACUUM run, outbox")
            await connection.execute("CHECKPOINT")
