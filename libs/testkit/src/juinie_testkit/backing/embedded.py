"""Postgres and Kafka as child processes, from the embedded stack of `juinie_standalone`, with throwaway data.

Which process serves is written into the data directory, so that any process of the session, or a later session, can
stop it; pid and start time together, so that nobody else's process is ever taken for it.
"""

import json
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from juinie_standalone.children import Child, Identity
from juinie_standalone.errors import StandaloneError
from juinie_standalone.servers import EmbeddedKafka, EmbeddedPostgres
from juinie_testkit.backing.session import CannotHave, Note

type EmbeddedServer = EmbeddedPostgres | EmbeddedKafka
type Name = Literal["postgres", "kafka"]

_IDENTITY = "process.json"

_started_here: dict[str, EmbeddedServer] = {}
"""By data directory. Whoever started a child has to reap it."""


def start_postgres() -> Note:
    """A throwaway Postgres: not made to survive a crash of the machine."""
    return _start("postgres", lambda note, server: {**note, "url": server.start()})


def start_kafka() -> Note:
    """A throwaway broker that is its own controller."""
    return _start("kafka", lambda note, server: {**note, "servers": server.start()})


def stop_server(note: Note) -> None:
    """Stop it in good order. Its port refuses connections; its data are kept."""
    _server(note).stop()


def kill_server(note: Note) -> None:
    """As `stop_server`, without warning (SIGKILL)."""
    _server(note).kill()


def freeze_server(note: Note) -> None:
    """SIGSTOP: its connections stay open and it says nothing more, until it is thawed."""
    _signal(note, signal.SIGSTOP)


def thaw_server(note: Note) -> None:
    """SIGCONT: it goes on where it was frozen."""
    _signal(note, signal.SIGCONT)


def restart_server(note: Note) -> None:
    """Start it again, on the same port, with its data."""
    server = _server(note)
    server.start()
    _remember(server)


def remove_server(note: Note) -> None:
    """End it and remove its data. One that is gone is fine."""
    server = _server(note)
    if isinstance(server, EmbeddedKafka):
        server.kill()
    else:
        server.stop()
    _started_here.pop(note["data_dir"], None)
    shutil.rmtree(note["data_dir"], ignore_errors=True)


def leave_running() -> None:
    """Forget the children that this process started: it ends before they do, and another one stops them."""
    for server in _started_here.values():
        if server.child and server.child.popen:
            server.child.popen.returncode = 0  # or Python would complain of a child that is still running


def _start(name: Name, start: Callable[[Note, EmbeddedServer], Note]) -> Note:
    data_dir = tempfile.mkdtemp(prefix=f"juinie-{name}-")
    Path(data_dir).chmod(0o711)  # Postgres does not run as root: its user must get through
    note = {"kind": "embedded", "server": name, "data_dir": data_dir}
    server = _made(name, Path(data_dir))
    _started_here[data_dir] = server
    try:
        started = start(note, server)
    except (StandaloneError, OSError) as error:
        remove_server(note)
        raise CannotHave(" ".join(str(error).split())) from error
    _remember(server)
    return started


def _signal(note: Note, number: signal.Signals) -> None:
    if child := _server(note).child:
        child.send(number)


def _server(note: Note) -> EmbeddedServer:
    """The server of a note, whoever started it."""
    if server := _started_here.get(note["data_dir"]):
        return server
    server = _made(note["server"], Path(note["data_dir"]))
    identity = server.data_dir / _IDENTITY
    if identity.exists():
        server.child = Child(Identity(**json.loads(identity.read_text())), server.log)
    return server


def _made(name: Name, data_dir: Path) -> EmbeddedServer:
    return EmbeddedPostgres(data_dir, durable=False) if name == "postgres" else EmbeddedKafka(data_dir)


def _remember(server: EmbeddedServer) -> None:
    if server.child:
        (server.data_dir / _IDENTITY).write_text(json.dumps(asdict(server.child.identity)))
