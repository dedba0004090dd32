"""Five processes as one thing: started in order, mended where one is dead, taken down again when a start fails.

Whatever `up` started and could not bring to health is stopped before it returns. A process is ours only by pid and
start time; what merely has a pid that we once knew is left alone.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

from juinie_standalone.children import Child, died, last_line, wait_until
from juinie_standalone.errors import StandaloneError
from juinie_standalone.home import Home
from juinie_standalone.plan import forget_plan, load, plan_of_environment, save
from juinie_standalone.ports import answers, require_free
from juinie_standalone.progress import say
from juinie_standalone.servers import EmbeddedKafka, EmbeddedPostgres
from juinie_standalone.services import Service, migrate

NAMES = ("postgres", "kafka", "api", "publisher", "stream-gateway")


class Part(Protocol):
    """A process of the stack."""

    name: str
    port: int
    child: Child | None
    log: Path
    start_seconds: float

    def spawn(self) -> Child: ...
    def is_ready(self) -> bool: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class Report:
    """How one part is."""

    name: str
    state: Literal["healthy", "not healthy", "dead", "stopped"]
    pid: int | None
    port: int


class Stack:
    """The stack of one home. Hold `home.lock` while calling what changes it.

    `keep_plan`: go by the plan of the last start though none of it lives, as everything but a new start does.
    """

    def __init__(self, home: Home, *, keep_plan: bool = True) -> None:
        self.home = home
        remembered = [child for child in map(home.recall, NAMES) if child is not None]
        known = load(home) if remembered else None
        self.is_known = known is not None
        goes_on = keep_plan or any(child.is_alive() for child in remembered)
        self.plan = known if known and goes_on else plan_of_environment(os.environ)
        self.postgres = EmbeddedPostgres(
            home.data / "postgres", self.plan.postgres_port, log=home.log("postgres")
        )
        self.kafka = EmbeddedKafka(home.data / "kafka", self.plan.kafka_port, log=home.log("kafka"))
        for part in self._servers():
            part.child = home.recall(part.name)
        self._started: list[Part] = []

    def up(self) -> bool:
        """Start what doesn't run, and wait until all is healthy. False when there was nothing to do.

        Raises:
            StandaloneError: one line; what this call started has been taken down again.
        """
        parts = [*self._servers(), *self._services()]
        if self.is_known and all(self._is_alive(part) and part.is_ready() for part in parts):
            self.home.write_env(self.plan.client_environment())
            return False
        try:
            if not self.is_known:
                self._take_down(parts)  # what a start left that was itself killed; its ports are not known
            self._tell_of_the_dead(parts)
            self._check_what_is_given()
            self._check_ports(parts)
            self._start_all()
        except BaseException:
            self._take_down(self._started)
            raise
        return True

    def down(self) -> None:
        """Stop everything of this stack: services first, then Kafka, then Postgres."""
        self._take_down([*self._servers(), *self._services()])
        self.home.env_file.unlink(missing_ok=True)
        forget_plan(self.home)

    def restart(self, name: str) -> None:
        """Stop one part, if it runs, start it again and wait until it is healthy.

        Raises:
            StandaloneError: no such part here, or it could not be started.
        """
        part = next((part for part in [*self._servers(), *self._services()] if part.name == name), None)
        if part is None:
            raise StandaloneError(f"There is no {name} to restart here: {', '.join(NAMES)}.")
        part.stop()
        self.home.forget(name)
        try:
            self._check_ports([part])
            self._spawn([part])
            self._wait([part])
        except BaseException:
            self._take_down(self._started)
            raise

    def reports(self) -> list[Report]:
        """How each part is now."""
        return [self._report(part) for part in [*self._servers(), *self._services()]]

    def _report(self, part: Part) -> Report:
        if part.child is None:
            return Report(part.name, "stopped", None, part.port)
        if not part.child.is_alive():
            return Report(part.name, "dead", part.child.pid, part.port)
        return Report(part.name, "healthy" if part.is_ready() else "not healthy", part.child.pid, part.port)

    def _servers(self) -> list[Part]:
        own: list[tuple[bool, Part]] = [
            (self.plan.own_postgres, self.postgres),
            (self.plan.own_kafka, self.kafka),
        ]
        return [part for is_ours, part in own if is_ours]

    def _services(self) -> list[Part]:
        plan, environment = self.plan, self.plan.service_environment()
        rows = (
            ("api", "juinie_api", plan.api_port, "JUINIE_API_PORT"),
            ("publisher", "juinie_publisher", plan.publisher_port, "JUINIE_PUBLISHER_PORT"),
            ("stream-gateway", "juinie_stream_gateway", plan.stream_port, "JUINIE_STREAM_PORT"),
        )
        return [Service(*row, self.home.log(row[0]), environment, self.home.recall(row[0])) for row in rows]

    def _is_alive(self, part: Part) -> bool:
        return part.child is not None and part.child.is_alive()

    def _tell_of_the_dead(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if part.child is not None and not part.child.is_alive():
                say(f"{part.name} had died; its log ends: {last_line(part.log)} ({part.log})")
                part.stop()
                self.home.forget(part.name)

    def _check_what_is_given(self) -> None:
        """Servers that the environment names have to be there: nobody would start them."""
        given = (
            (self.plan.own_postgres, "DATABASE_URL", self.plan.database_url),
            (
                self.plan.own_kafka,
                "KAFKA_BOOTSTRAP_SERVERS",
                f"//{self.plan.kafka_bootstrap_servers.split(',')[0]}",
            ),
        )
        for is_ours, setting, url in given:
            if is_ours:
                continue
            address = urlsplit(url)
            if not answers(address.port or 5432, address.hostname or "localhost"):
                raise StandaloneError(
                    f"Nobody answers at {address.hostname}:{address.port}, which {setting} names."
                )
            say(
                f"using what {setting} names, at {address.hostname}:{address.port}, instead of an embedded server"
            )

    def _check_ports(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if isinstance(part, Service) and not self._is_alive(part):
                require_free(part.port, part.name, part.port_setting)

    def _start_all(self) -> None:
        """Kafka first, which takes longest; meanwhile Postgres and the migrations; the services wait for Kafka."""
        servers = self._servers()
        self._spawn(list(reversed(servers)))
        self._settle_plan()
        self._wait([part for part in servers if part is self.postgres])
        migrate(self.plan.service_environment(), self.home.log("migrate"))
        services = self._services()
        self._spawn(services)
        self._wait([*servers, *services])
        self.home.write_env(self.plan.client_environment())

    def _settle_plan(self) -> None:
        """Write down what was chosen, for later commands."""
        if self.plan.own_postgres:
            self.plan = self.plan.with_postgres(self.postgres.url, self.postgres.port)
        if self.plan.own_kafka:
            self.plan = self.plan.with_kafka(self.kafka.bootstrap, self.kafka.port)
        save(self.plan, self.home)

    def _spawn(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if not self._is_alive(part):
                self._started.append(part)
                self.home.remember(part.name, part.spawn())

    def _wait(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if part.child is None:
                raise StandaloneError(f"{part.name} was not started.")
            wait_until(part.child, part.name, partial(self._is_ready, part, parts), part.start_seconds)

    def _is_ready(self, part: Part, together: Sequence[Part]) -> bool:
        """Whether a part is healthy; raises when one of those that start with it is dead, for which it might wait."""
        for other in together:
            if other.child is not None and not other.child.is_alive():
                raise died(other.child, other.name)
        return part.is_ready()

    def _take_down(self, parts: Sequence[Part]) -> None:
        services = [part for part in parts if isinstance(part, Service)]
        if services:
            with ThreadPoolExecutor(len(services)) as pool:
                list(pool.map(Service.stop, services))
        for server in (self.kafka, self.postgres):
            if server in parts:
                server.stop()
        for part in parts:
            self.home.forget(part.name)
