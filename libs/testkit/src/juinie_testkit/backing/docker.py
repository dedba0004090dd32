"""Postgres and Kafka in containers, through testcontainers.

testcontainers' own KafkaContainer drives another image, so the broker's settings are here. Its reaper (Ryuk) is off:
the image is one more to pull, and sessions clean up after themselves (`session.py`).
"""

import asyncio
import os
import socket
from collections.abc import Coroutine, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from juinie_standalone.ports import free_ports
from juinie_testkit.backing.ready import run_aside, wait_for_kafka, wait_for_postgres
from juinie_testkit.backing.session import CannotHave, Note

POSTGRES_IMAGE = "postgres:17"
KAFKA_IMAGE = "apache/kafka:4.3.1"

_HOST = "127.0.0.1"
_START_SECONDS = 90
_LOOK_SECONDS = 1
_STOP_SECONDS = 10


def start_postgres() -> Note:
    """A throwaway Postgres: in memory, and not made to survive a crash of the machine."""
    port = free_port()
    arguments = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=400")
    command = "postgres " + " ".join(f"-c {argument}" for argument in arguments)
    environment = {"POSTGRES_USER": "juinie", "POSTGRES_HOST_AUTH_METHOD": "trust"}
    note = _run(POSTGRES_IMAGE, port, "5432/tcp", environment, {"/var/lib/postgresql/data": "rw"}, command)
    url = f"postgresql://juinie@{_HOST}:{port}/postgres"
    _ready_or_removed(note, wait_for_postgres(url, _START_SECONDS))
    return {**note, "url": url}


def start_kafka() -> Note:
    """A throwaway broker that is its own controller. It advertises the host's port, so that is chosen first."""
    port = free_port()
    settings = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "LISTENERS": "HOST://:19092,BROKER://:9092,CONTROLLER://:9093",
        "ADVERTISED_LISTENERS": f"HOST://{_HOST}:{port},BROKER://localhost:9092",
        "LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "INTER_BROKER_LISTENER_NAME": "BROKER",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "BROKER_HEARTBEAT_INTERVAL_MS": "1000",  # a killed broker is let in again once its session has ended
        "BROKER_SESSION_TIMEOUT_MS": "4000",
        "AUTO_CREATE_TOPICS_ENABLE": "false",
        "HEAP_OPTS": "-Xms128m -Xmx384m",
    }
    environment = {f"KAFKA_{name}": value for name, value in settings.items()}
    # Written anew from these variables at every start, whatever modes the image's own files have.
    config = {"/opt/kafka/config": "uid=1000,gid=1000"}
    note = _run(KAFKA_IMAGE, port, "19092/tcp", environment, config)
    servers = f"{_HOST}:{port}"
    _ready_or_removed(note, wait_for_kafka(servers, _START_SECONDS))
    return {**note, "servers": servers}


def stop_server(note: Note) -> None:
    """Stop the container in good order. Its port refuses connections; its data are kept."""
    with _container(note) as container:
        container.stop(timeout=_STOP_SECONDS)


def kill_server(note: Note) -> None:
    """As `stop_server`, without warning (SIGKILL)."""
    with _container(note) as container:
        container.kill()
        container.wait()


def freeze_server(note: Note) -> None:
    """Its connections stay open and it says nothing more, until it is thawed."""
    with _container(note) as container:
        container.pause()


def thaw_server(note: Note) -> None:
    """It goes on where it was frozen."""
    with _container(note) as container:
        container.unpause()


def restart_server(note: Note) -> None:
    """Start the stopped container again, on the same port, with its data."""
    with _container(note) as container:
        container.start()


def remove_server(note: Note) -> None:
    """Remove the container and its data. One that is gone, with Docker itself perhaps, is fine."""
    from docker.errors import DockerException

    with suppress(DockerException, OSError), _container(note) as container:
        if container is not None:
            container.remove(force=True, v=True)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    return free_ports(1)[0]


def _run(
    image: str,
    port: int,
    inner_port: str,
    environment: dict[str, str],
    in_memory: dict[str, str],
    command: str | None = None,
) -> Note:
    """Start a container. `in_memory`: directories on tmpfs, with their mount options."""
    _set_up_testcontainers()
    from docker.errors import DockerException
    from testcontainers.core.container import DockerContainer

    try:
        _look_for_engine()
        container = DockerContainer(image, command=command).with_envs(**environment)
        for directory, options in in_memory.items():
            container.with_tmpfs_mount(directory, options)
        container.ports[inner_port] = (_HOST, port)  # pyright: ignore[reportArgumentType] - docker-py takes the pair
        try:
            container.start()
            return {"kind": "docker", "container": container.get_wrapped_container().id}
        finally:
            container.get_docker_client().client.close()
    except (DockerException, OSError) as error:
        raise CannotHave(_one_line(error)) from error


def _set_up_testcontainers() -> None:
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    if Path(
        "/.dockerenv"
    ).exists():  # a machine made from a container: published ports are on the loopback all the same
        os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
        os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", _HOST)


def _look_for_engine() -> None:
    """Raise OSError where no engine listens: docker-py leaves its own socket open there, for the next test to be blamed."""
    from docker.utils import parse_host
    from testcontainers.core.docker_client import get_docker_host

    address = str(parse_host(get_docker_host()))
    if address.startswith("http+unix://"):
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(address.removeprefix("http+unix://"))


def _ready_or_removed(note: Note, answer: Coroutine[object, object, None]) -> None:
    """Wait for the server's answer. A container that ends before it is told at once, by the last line it wrote."""
    try:
        run_aside(_answer_or_end(note, answer))
    except BaseException:
        remove_server(note)
        raise


async def _answer_or_end(note: Note, answer: Coroutine[object, object, None]) -> None:
    waiting = asyncio.create_task(answer)
    try:
        while not (await asyncio.wait({waiting}, timeout=_LOOK_SECONDS))[0]:
            if last_words := await asyncio.to_thread(_last_words, note):
                raise CannotHave(f"the container ended: {last_words}")
        await waiting
    finally:
        waiting.cancel()


def _last_words(note: Note) -> str | None:
    """The last line of a container that has ended; None while it runs."""
    with _container(note) as container:
        if container is None:
            return "it was removed"
        if container.status == "running":
            return None
        lines = container.logs(tail=20).decode(errors="replace").splitlines()
    return next((line[:160] for line in reversed(lines) if line.strip()), "it said nothing")


@contextmanager
def _container(note: Note) -> Generator[Any]:
    """The container of a note, None when it is gone."""
    import docker
    from docker.errors import NotFound

    _look_for_engine()
    client = docker.from_env()
    try:
        yield client.containers.get(note["container"])
    except NotFound:
        yield None
    finally:
        client.close()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
