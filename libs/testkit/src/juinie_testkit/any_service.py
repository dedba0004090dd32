"""A service as a test that is the same for all of them sees it: a name, its `serve`, and settings for any servers."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from juinie_testkit.backing.docker import free_port
from juinie_testkit.stack import ServiceProcess

AT_ONCE_SECONDS = 8
"""Until a process that cannot start has ended. What is promised is 5 s; it takes a third of one, on a machine that has time."""
SIGNING_KEYS = "test=juinie-testkit-signing-key-0123456789"


@dataclass(frozen=True, slots=True)
class AnyService:
    """A service that a test may start as often as it likes. `module` and `port_setting` are for a process of its own."""

    name: str
    serve: Callable[..., Awaitable[None]]
    settings_class: Any
    module: str
    port_setting: str

    def settings(
        self, database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, **changes: Any
    ) -> Any:
        """Its settings for these servers, of which it takes those that it knows."""
        values = {
            "database_url": database_url,
            "kafka_bootstrap_servers": kafka_bootstrap_servers,
            "kafka_topic": kafka_topic,
            "kafka_partitions": 1,
            "stream_token_keys": SIGNING_KEYS,
            "env": "test",
            "port": 0,
            "last_call_seconds": 0,
            **changes,
        }
        known = {name: value for name, value in values.items() if name in self.settings_class.model_fields}
        return self.settings_class.model_validate(known)

    def process(self, directory: Path, *arguments: str, **environment: str) -> ServiceProcess:
        """It as a process, Postgres and Kafka away unless the environment says where they are. `arguments` of its command."""
        port = int(environment.get(self.port_setting, free_port()))
        away = f"127.0.0.1:{free_port()}"
        settings = {
            "DATABASE_URL": f"postgresql://juinie@{away}/juinie",
            "KAFKA_BOOTSTRAP_SERVERS": away,
            "JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS,
            "JUINIE_ENV": "test",
            "JUINIE_LAST_CALL_SECONDS": "0",
            self.port_setting: str(port),
            **environment,
        }
        return ServiceProcess(
            self.name, self.module, port, settings, directory / f"{self.name}.log", arguments
        )


async def ends_at_once(*arguments: str, environment: Mapping[str, str]) -> tuple[int | None, bytes, bytes]:
    """Run `python -m` with these arguments, to its end: its exit code, output and errors.

    Raises:
        TimeoutError: it has not ended in `AT_ONCE_SECONDS`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), AT_ONCE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, output, errors
