"""A real Postgres as a child process: TCP on 127.0.0.1 only, a password of its own, no Unix socket.

What lies in the data directory as `cluster` is whole: it is made under another name and renamed at last.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from juinie_standalone.binaries import PostgresBinaries, find_postgres
from juinie_standalone.children import Child, User, identity_of, spawn, wait_until
from juinie_standalone.errors import DISK_FULL, StandaloneError, is_disk_full
from juinie_standalone.ports import HOST, require_free
from juinie_standalone.servers.pid_file import PidFile
from juinie_standalone.servers.remembered import remembered_ports
from juinie_standalone.users import unprivileged

START_SECONDS = 60.0
STOP_SECONDS = 20.0
_INITDB_SECONDS = 120
_POLL_SECONDS = 0.1
_NAME = "juinie"
_THROWAWAY = ("fsync=off", "full_page_writes=off")  # a SIGKILL loses nothing, a power cut all


class EmbeddedPostgres:
    """One Postgres with a superuser and a database `juinie`.

    Args:
        data_dir: what it keeps; made when missing. The log is `postgres.log` in it, or `log`.
        port: 0 chooses a free one, and the same again at the next start while that is free.
        durable: False for throwaway test servers: no fsync.
        dies_with_parent: killed when the thread that starts it ends (Linux).
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        durable: bool = True,
        dies_with_parent: bool = False,
        log: Path | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.name = "postgres"
        self.start_seconds = START_SECONDS
        self.child: Child | None = None
        self.log = log or self.data_dir / "postgres.log"
        self._cluster = self.data_dir / "cluster"
        self._password_file = self.data_dir / "password"
        self._durable = durable
        self._dies_with_parent = dies_with_parent

    @property
    def url(self) -> str:
        """A libpq URL, password included."""
        return f"postgresql://{_NAME}:{self._password_file.read_text().strip()}@{HOST}:{self.port}/{_NAME}"

    def start(self) -> str:
        """Start it and wait until it takes connections; returns its URL.

        Raises:
            StandaloneError: one line that says what was in the way. Nothing runs then.
        """
        self.spawn()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self.url

    def spawn(self) -> Child:
        """Start it without waiting; on its first start the cluster is made before."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        binaries = find_postgres(self._major())
        user = unprivileged(binaries.directory / "postgres", self._cluster, owner_of=self._cluster)
        if not self._cluster.exists():
            self._make_cluster(binaries, user)
        self._refuse_a_second()
        self._choose_port()
        options = [
            *(_THROWAWAY if not self._durable else ()),
            "unix_socket_directories=",
            f"listen_addresses={HOST}",
        ]
        command = [str(binaries.directory / "postgres"), "-D", str(self._cluster), "-p", str(self.port)]
        command += [part for option in (*options, "max_connections=400") for part in ("-c", option)]
        self.child = spawn(
            command, self.log, env=_environment(), user=user, dies_with_parent=self._dies_with_parent
        )
        return self.child

    def wait_ready(self) -> None:
        """Wait until it takes connections."""
        if self.child is None:
            raise StandaloneError("Postgres was not started.")
        wait_until(self.child, "Postgres", self.is_ready, self.start_seconds)

    def is_ready(self) -> bool:
        """Whether the postmaster that we started says `ready` in its pid file."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        ours = self.child is not None and lines[:1] == [str(self.child.pid)]
        return ours and len(lines) > 7 and lines[7].strip() == "ready"

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back. Killed when that takes too long."""
        if self.child is not None:
            self.child.stop(signal.SIGINT, STOP_SECONDS)
            self.child = None
        self._clear_remains()

    def kill(self) -> None:
        """SIGKILL, for tests of what survives it."""
        if self.child is not None:
            self.child.kill()
            self.child = None

    def _major(self) -> int | None:
        version = self._cluster / "PG_VERSION"
        return int(version.read_text()) if version.exists() else None

    def _choose_port(self) -> None:
        self.port = self.port or remembered_ports(self.data_dir / "port", 1)[0]
        require_free(self.port, "Postgres", "JUINIE_POSTGRES_PORT")

    def _refuse_a_second(self) -> None:
        """Two servers on one cluster would ruin it, and so would one beside sessions of a server that was killed.

        Such sessions live on for as long as their statement takes; Postgres knows of them by the shared memory that they
        hold, so that is left alone until nobody does.
        """
        pid_file = PidFile.read(self._cluster)
        if pid_file.pid is not None and _serves(pid_file.pid, self._cluster):
            raise StandaloneError(
                f"Another Postgres (pid {pid_file.pid}) runs on {self._cluster}: stop it first."
            )
        deadline = time.monotonic() + STOP_SECONDS
        while pid_file.attached():
            if time.monotonic() > deadline:
                raise StandaloneError(
                    f"Sessions of a Postgres that was killed still run on {self._cluster}: end them first."
                )
            time.sleep(_POLL_SECONDS)
        self._clear_remains()

    def _clear_remains(self) -> None:
        """Remove what a killed postmaster leaves, once nobody uses it: its pid file and its shared memory segment."""
        pid_file = PidFile.read(self._cluster)
        if (
            not (pid_file.pid is not None and _serves(pid_file.pid, self._cluster))
            and not pid_file.attached()
        ):
            pid_file.remove()

    def _make_cluster(self, binaries: PostgresBinaries, user: User | None) -> None:
        made = self.data_dir / "cluster.new"
        shutil.rmtree(made, ignore_errors=True)
        try:
            self._write_password(user)
            made.mkdir(mode=0o700)
            if user is not None:
                os.chown(made, user.uid, user.gid)
            sync = () if self._durable else ("--no-sync",)
            auth = ("-U", _NAME, "--auth=scram-sha-256", f"--pwfile={self._password_file}")
            initdb = (
                str(binaries.directory / "initdb"),
                "-D",
                str(made),
                "-E",
                "UTF8",
                "--locale=C",
                *auth,
                *sync,
            )
            _run(initdb, user)
            single = (str(binaries.directory / "postgres"), "--single", "-D", str(made), "postgres")
            _run(single, user, said=f"CREATE DATABASE {_NAME}\n")
            made.rename(self._cluster)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise

    def _write_password(self, user: User | None) -> None:
        self._password_file.unlink(missing_ok=True)
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
        if user is not None:
            os.chown(self._password_file, user.uid, user.gid)


def _run(command: tuple[str, ...], user: User | None, said: str = "") -> None:
    plain = user if user and not user.prefix else None
    done = subprocess.run(
        [*(user.prefix if user else ()), *command],
        input=said, check=False, capture_output=True, text=True, timeout=_INITDB_SECONDS, env=_environment(), cwd="/",
        user=plain.uid if plain else None, group=plain.gid if plain else None, extra_groups=[] if plain else None,
    )  # fmt: skip
    output = done.stdout + done.stderr
    if done.returncode == 0 and "ERROR" not in output:
        return
    if is_disk_full(output):
        raise StandaloneError(
            f"{DISK_FULL.capitalize()} while making the database: free some space and try again."
        )
    faults = [line for line in output.splitlines() if "error" in line.lower() or "FATAL" in line]
    raise StandaloneError(f"Making the database failed: {' '.join((faults or [output])[0].split())[:300]}")


def _environment() -> dict[str, str]:
    """Ours without PG*, which would change what the server and initdb do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def _serves(pid: int, cluster: Path) -> bool:
    """Whether a process lives that has this pid and works on this cluster."""
    if identity_of(pid) is None:
        return False
    try:
        return str(cluster).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self/cmdline").exists()
