"""A real Kafka as a child process: one KRaft node, broker and controller in one JVM, on 127.0.0.1 only.

Small on purpose (256 MiB heap, one-partition internal topics). Topics are never created by asking for them: the
publisher makes its own, with the partitions it wants. After a SIGKILL the controller waits for the dead broker's
session to end, hence the short one.
"""

import base64
import os
import signal
import socket
import struct
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from juinie_standalone.binaries import find_java
from juinie_standalone.children import Child, spawn, wait_until
from juinie_standalone.errors import DISK_FULL, StandaloneError, is_disk_full
from juinie_standalone.jars import fetched_kafka
from juinie_standalone.ports import HOST, require_free
from juinie_standalone.servers.remembered import remembered_ports

START_SECONDS = 90.0
STOP_SECONDS = 20.0
_FORMAT_SECONDS = 120
_SMALL_JVM = (
    "-Xmx256m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
)
_METADATA_V1_FOR_NO_TOPIC = struct.pack("!ihhihi", 14, 3, 1, 1, -1, 0)

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://{host}:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={directory}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=4000
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=1048576
"""


@dataclass(frozen=True)
class Door:
    """A further listener. Who comes through it is told to come to `advertised_port` ever after: that of a proxy."""

    name: str
    port: int
    advertised_port: int


class EmbeddedKafka:
    """One Kafka broker.

    Args:
        data_dir: what it keeps; made when missing. Its log is `kafka.log` in it, or `log`.
        port: 0 chooses a free one, and the same again at the next start while that is free.
        dies_with_parent: killed when the thread that starts it ends (Linux).
        doors: further listeners.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        dies_with_parent: bool = False,
        log: Path | None = None,
        doors: Sequence[Door] = (),
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.name = "kafka"
        self.start_seconds = START_SECONDS
        self.child: Child | None = None
        self.log = log or self.data_dir / "kafka.log"
        self._dies_with_parent = dies_with_parent
        self._doors = doors

    @property
    def bootstrap(self) -> str:
        """What `KAFKA_BOOTSTRAP_SERVERS` takes."""
        return f"{HOST}:{self.port}"

    def start(self) -> str:
        """Start it and wait until it takes requests; returns its bootstrap address.

        Raises:
            StandaloneError: one line that says what was in the way. Nothing runs then.
        """
        self.spawn()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self.bootstrap

    def spawn(self) -> Child:
        """Start it without waiting; on its first start the storage is formatted before."""
        jars = fetched_kafka()
        java = find_java()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._choose_ports_and_configure()
        command = [str(java), *_SMALL_JVM, f"-Dlog4j2.configurationFile={self._log4j()}", "-cp", f"{jars}/*"]
        if not (self.data_dir / "log" / "meta.properties").exists():
            self._format(command)
        self.child = spawn(
            [*command, "kafka.Kafka", str(self._properties)],
            self.log,
            env=_environment(),
            dies_with_parent=self._dies_with_parent,
        )
        return self.child

    def wait_ready(self) -> None:
        """Wait until it takes requests."""
        if self.child is None:
            raise StandaloneError("Kafka was not started.")
        wait_until(self.child, "Kafka", self.is_ready, self.start_seconds)

    def is_ready(self) -> bool:
        """Whether the broker answers, and counts itself among the brokers that are in service."""
        return takes_requests(self.port)

    def stop(self) -> None:
        """A controlled shutdown; killed when that takes too long."""
        if self.child is not None:
            self.child.stop(signal.SIGTERM, STOP_SECONDS)
            self.child = None

    def kill(self) -> None:
        """SIGKILL, for tests of what survives it."""
        if self.child is not None:
            self.child.kill()
            self.child = None

    @property
    def _properties(self) -> Path:
        return self.data_dir / "server.properties"

    def _choose_ports_and_configure(self) -> None:
        chosen, controller_port = remembered_ports(self.data_dir / "ports", 2)
        self.port = self.port or chosen
        require_free(self.port, "Kafka", "JUINIE_KAFKA_PORT")
        self._properties.write_text(
            _PROPERTIES.format(
                host=HOST,
                port=self.port,
                controller_port=controller_port,
                directory=self.data_dir / "log",
                listeners="".join(f",{door.name}://{HOST}:{door.port}" for door in self._doors),
                advertised="".join(f",{door.name}://{HOST}:{door.advertised_port}" for door in self._doors),
                protocols="".join(f",{door.name}:PLAINTEXT" for door in self._doors),
            )
        )

    def _log4j(self) -> Path:
        """The logging configuration, as a file that the JVM can read."""
        text = files("juinie_standalone").joinpath("servers", "log4j2.properties").read_text()
        place = self.data_dir / "log4j2.properties"
        place.write_text(text)
        return place

    def _cluster_id(self) -> str:
        """Of the cluster that it is a part of: its own."""
        return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()

    def _format(self, java: list[str]) -> None:
        # An id that begins with a dash would be read as an option.
        tool = [
            *java,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={self._cluster_id()}",
            "-c",
            str(self._properties),
        ]
        done = subprocess.run(
            tool, check=False, capture_output=True, text=True, timeout=_FORMAT_SECONDS, env=_environment()
        )
        if done.returncode == 0:
            return
        output = done.stdout + done.stderr
        if is_disk_full(output):
            raise StandaloneError(
                f"{DISK_FULL.capitalize()} while making Kafka's storage: free some space and try again."
            )
        raise StandaloneError(f"Making Kafka's storage failed: {' '.join(output.split())[:300]}")


def takes_requests(port: int, host: str = HOST) -> bool:
    """Ask a broker for its metadata, as any client does first; true when it lists at least one broker."""
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.settimeout(2)
            connection.sendall(_METADATA_V1_FOR_NO_TOPIC)
            answer = _exactly(connection, struct.calcsize("!iii"))
    except OSError:
        return False
    _, _, brokers = struct.unpack("!iii", answer)
    return brokers > 0


def _exactly(connection: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count:
        more = connection.recv(count - len(read))
        if not more:
            raise ConnectionError
        read += more
    return read


def _environment() -> dict[str, str]:
    """Ours without what would change the JVM's options behind our back."""
    foreign = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
    return {name: value for name, value in os.environ.items() if name not in foreign}
