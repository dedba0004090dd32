"""A real pgbouncer in front of a Postgres, as a child process. It is no Python package: the system has it, or the test fails."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from juinie_testkit.backing.docker import free_port

type PoolMode = Literal["session", "transaction", "statement"]

SKIP_PGBOUNCER = "JUINIE_SKIP_PGBOUNCER_TESTS"
HOW_TO_GET_IT = (
    "This test needs pgbouncer: apt-get install pgbouncer (Debian, Ubuntu), brew install pgbouncer (macOS), "
    f"or skip such tests with {SKIP_PGBOUNCER}=1."
)
_START_SECONDS = 20
_UNPRIVILEGED = "nobody"
"""pgbouncer does not run as root."""


class NoPgBouncer(AssertionError):
    """There is no pgbouncer on this machine. The message says how to get it."""


class PgBouncer:
    """One pgbouncer, with its defaults but for what is given: `settings` are lines of `pgbouncer.ini`."""

    def __init__(self, directory: Path, server_url: str, pool_mode: PoolMode, **settings: object) -> None:
        self.port = free_port()
        self.log = directory / "pgbouncer.log"
        self._config = directory / "pgbouncer.ini"
        self._config.write_text(_config(server_url, self.port, {"pool_mode": pool_mode, **settings}))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            NoPgBouncer: it is not installed.
        """
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
        program = shutil.which("pgbouncer", path=path)
        if program is None:
            raise NoPgBouncer(HOW_TO_GET_IT)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(self._config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._until_it_listens()

    def url_through(self, database_url: str) -> str:
        """The URL of the same database by way of this pgbouncer."""
        parts = urlsplit(database_url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _until_it_listens(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"pgbouncer did not start:\n{self.log.read_text(errors='replace')}")


def _config(server_url: str, port: int, settings: dict[str, object]) -> str:
    parts = urlsplit(server_url)
    server = f"host={parts.hostname} port={parts.port or 5432}"
    login = f"user={unquote(parts.username or 'postgres')}"
    if parts.password:  # pgbouncer refuses an empty one
        login += f" password='{unquote(parts.password)}'"
    general: dict[str, object] = {
        "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "any",
        **({"user": _UNPRIVILEGED} if os.geteuid() == 0 else {}), **settings,
    }  # fmt: skip
    lines = [f"{name} = {value}" for name, value in general.items()]
    return "\n".join(["[databases]", f"* = {server} {login}", "[pgbouncer]", *lines, ""])
