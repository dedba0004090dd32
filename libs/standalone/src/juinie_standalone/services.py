"""The three services as child processes, told apart by module and port only: nothing of them is imported here."""

import http.client
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from juinie_standalone.children import Child, last_line, spawn
from juinie_standalone.errors import StandaloneError
from juinie_standalone.ports import HOST

START_SECONDS = 120.0  # seconds on a free machine; a busy one with two cores takes its time
STOP_SECONDS = 15.0
_MIGRATE_SECONDS = 300


@dataclass
class Service:
    """One service: `python -m <module>`, healthy when its `/readyz` says 200."""

    name: str
    module: str
    port: int
    port_setting: str
    log: Path
    environment: Mapping[str, str] = field(repr=False)
    child: Child | None = None
    start_seconds: float = START_SECONDS

    def spawn(self) -> Child:
        """Start it without waiting."""
        self.child = spawn([sys.executable, "-m", self.module], self.log, env=self.environment)
        return self.child

    def is_ready(self) -> bool:
        """Whether it can do its work now, all that it depends on included."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Let it drain, then kill it."""
        if self.child is not None:
            self.child.stop(signal.SIGTERM, STOP_SECONDS)
            self.child = None


def migrate(environment: Mapping[str, str], log: Path) -> None:
    """Bring the schema up, and with it the development key.

    Raises:
        StandaloneError: the last line of what the command said.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        command = [sys.executable, "-m", "juinie_api", "migrate"]
        done = subprocess.run(
            command, check=False, stdout=output, stderr=output, env=environment, timeout=_MIGRATE_SECONDS
        )
    if done.returncode != 0:
        raise StandaloneError(f"The migrations failed: {last_line(log)} ({log})")


def make_key(environment: Mapping[str, str], tenant: str, scopes: str) -> int:
    """Print a new key on stdout; returns the exit code of the command that made it."""
    command = [sys.executable, "-m", "juinie_api", "keys", "create", "--tenant", tenant, "--scopes", scopes]
    return subprocess.run(command, check=False, env=environment).returncode
