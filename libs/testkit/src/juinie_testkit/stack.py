"""All services as processes of their own, against one database and one topic: for tests from outside.

A service keeps its port over restarts. Methods that wait are async, and belong to no event loop: a stack may be
shared by tests that each have their own.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import httpx

from juinie_testkit.backing.docker import free_port
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.waits import StillMissing

START_SECONDS = 120
"""A service's imports alone take most of a second of a whole processor, and a busy machine has none."""

_LOOK_EVERY_SECONDS = 0.05
_LOG_LINES = 20


class ServiceProcess:
    """One service. Its log is a file, kept over restarts."""

    def __init__(
        self,
        name: str,
        module: str,
        port: int,
        environment: dict[str, str],
        log: Path,
        arguments: Sequence[str] = (),
    ) -> None:
        self._arguments = arguments
        self.name, self.module, self.port, self.log = name, module, port, log
        self.url = f"http://127.0.0.1:{port}"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Of the process that was started last."""
        return self._process and self._process.pid

    async def start(self) -> None:
        """Start it and wait until it is ready. One that runs is left alone, and woken if it was frozen."""
        self.launch()
        await self.until_ready()

    def launch(self) -> None:
        """Start it, without waiting for anything."""
        if self.running:
            self._send(signal.SIGCONT)
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self._arguments], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )  # fmt: skip

    async def until_ready(self, timeout_seconds: float = START_SECONDS) -> None:
        """Wait for 200 on /readyz.

        Raises:
            StillMissing: it did not come, or the process ended; the message has the end of its log.
        """
        await asyncio.to_thread(self._until_ready, timeout_seconds)

    async def stop(self, timeout_seconds: float = 20) -> int:
        """SIGTERM. Gives the exit code."""
        self._send(signal.SIGTERM)
        return await asyncio.to_thread(self._wait, timeout_seconds)

    async def kill(self) -> None:
        """SIGKILL."""
        self._send(signal.SIGKILL)
        await asyncio.to_thread(self._wait, 10)

    async def restart(self) -> None:
        """Stop it in good order and start it again."""
        await self.stop()
        await self.start()

    def freeze(self) -> None:
        """SIGSTOP: it holds what it holds, and does nothing."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._send(signal.SIGCONT)

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"{self.name} | {line}" for line in lines[-_LOG_LINES:])

    def end(self) -> None:
        """Leave nothing running."""
        if self.running:
            self._send(signal.SIGCONT)
            self._send(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
                raise

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _wait(self, timeout_seconds: float) -> int:
        if self._process is None:
            raise ValueError(f"{self.name} was never started.")
        return self._process.wait(timeout_seconds)

    def _until_ready(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        answer = "nothing"
        with httpx.Client(verify=NO_TLS, base_url=self.url, trust_env=False, timeout=5) as client:
            while self.running and time.monotonic() < deadline:
                try:
                    response = client.get("/readyz")
                    if response.status_code == 200:
                        return
                    answer = response.text
                except httpx.TransportError as error:
                    answer = type(error).__name__
                time.sleep(_LOOK_EVERY_SECONDS)
        state = "not ready in time" if self.running else "ended"
        raise StillMissing(f"{self.name} {state}; /readyz: {answer}; its log:\n{self.tail()}")


class Stack:
    """One or more of each service. `directory` gets their logs; `environment` their extra settings, `own` those of one alone, by its name."""

    def __init__(
        self,
        database_url: str,
        kafka_bootstrap_servers: str,
        kafka_topic: str,
        directory: Path,
        gateways: int = 1,
        environment: dict[str, str] | None = None,
        *,
        apis: int = 1,
        publishers: int = 1,
        own: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.database_url, self.kafka_topic = database_url, kafka_topic
        self.kafka_bootstrap_servers = kafka_bootstrap_servers
        self._directory, self._own = directory, own or {}
        self._common = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("JUINIE_", "OTEL_"))
            },
            "DATABASE_URL": database_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
            "JUINIE_KAFKA_TOPIC": kafka_topic,
            "JUINIE_KAFKA_PARTITIONS": "3",
            "JUINIE_ENV": "test",
            "JUINIE_LOG_LEVEL": "debug",
            "JUINIE_LAST_CALL_SECONDS": "0",  # nobody balances, and a restart shall not wait for it
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        self.publishers = [
            self._service(name, "juinie_publisher", "JUINIE_PUBLISHER_PORT")
            for name in _names("publisher", publishers)
        ]
        self.gateways = [
            self._service(f"gateway-{number}", "juinie_stream_gateway", "JUINIE_STREAM_PORT")
            for number in range(1, gateways + 1)
        ]
        self.apis = [
            self._service(name, "juinie_api", "JUINIE_API_PORT", JUINIE_STREAM_URL=self.gateway.url)
            for name in _names("api", apis)
        ]

    @property
    def api(self) -> ServiceProcess:
        """The first api."""
        return self.apis[0]

    @property
    def publisher(self) -> ServiceProcess:
        """The first publisher."""
        return self.publishers[0]

    @property
    def gateway(self) -> ServiceProcess:
        """The first gateway."""
        return self.gateways[0]

    @property
    def services(self) -> list[ServiceProcess]:
        return [*self.apis, *self.publishers, *self.gateways]

    async def start(self) -> None:
        """Start what does not run, all at once, and wait until all is ready."""
        for service in self.services:
            service.launch()
        for service in self.services:
            await service.until_ready()

    def publisher_through(self, database_url: str) -> ServiceProcess:
        """One more publisher, whose way to this stack's database is this. Whoever asks for it starts and ends it."""
        return self._service(
            "publisher-apart", "juinie_publisher", "JUINIE_PUBLISHER_PORT", DATABASE_URL=database_url
        )

    def logs(self) -> str:
        """The last lines of every log."""
        return "\n".join(service.tail() for service in self.services)

    def end(self) -> None:
        """Stop everything.

        Raises:
            subprocess.TimeoutExpired: a service did not go within 20 s of SIGTERM, and was killed.
        """
        for service in self.services:
            if service.running:
                service.thaw()
        for service in self.services:
            service.end()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await asyncio.to_thread(self.end)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.end)

    def _service(self, name: str, module: str, port_setting: str, **more: str) -> ServiceProcess:
        port = free_port()
        environment = {**self._common, port_setting: str(port), **more, **self._own.get(name, {})}
        return ServiceProcess(name, module, port, environment, self._directory / f"{name}.log")


def _names(name: str, count: int) -> list[str]:
    return [name, *(f"{name}-{number}" for number in range(2, count + 1))]
