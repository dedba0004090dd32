"""TCP ports on the loopback address: a free one, and who has a taken one."""

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from juinie_standalone.errors import PortTaken

HOST = "127.0.0.1"
_LISTENING = "0A"


_BELOW_OUTGOING = range(10_240, 32_768)
"""Systems take the ports of outgoing connections, and of those who ask for any, from above."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, all different.

    All processes of this user take turns through the range. So whoever got a port and does not listen on it yet, or
    just now, has it for himself until some 20,000 others have been given out.
    """
    path = Path(tempfile.gettempdir()) / f"juinie-ports-{os.getuid()}"
    with path.open("a+") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        turn.seek(0)
        last = turn.read()
        ports = list(islice(filter(is_free, _all_after(int(last or 0))), count))
        turn.truncate(0)
        turn.write(str(ports[-1]))
    return ports


def _all_after(last: int) -> Generator[int]:
    """Every port of the range once, beginning after `last`, or anywhere."""
    known = last in _BELOW_OUTGOING
    start = _BELOW_OUTGOING.index(last) + 1 if known else secrets.randbelow(len(_BELOW_OUTGOING))
    yield from _BELOW_OUTGOING[start:]
    yield from _BELOW_OUTGOING[:start]


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HOST, port))
        except OSError:
            return False
        return True


def answers(port: int, host: str = HOST) -> bool:
    """Whether somebody accepts a connection there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def require_free(port: int, what: str, setting: str) -> None:
    """Raises `PortTaken`, which names who has the port when that can be known."""
    if is_free(port):
        return
    owner = owner_of(port)
    by = f" by {owner}" if owner else ""
    raise PortTaken(f"Port {port}, where {what} should listen, is taken{by}: stop that or set {setting}.")


def owner_of(port: int) -> str | None:
    """`name (pid 123)` of the process that listens on a port, if this user may know."""
    pid = _owner_by_proc(port) if Path("/proc/net/tcp").exists() else _owner_by_lsof(port)
    if pid is None:
        return None
    return f"{_name_of(pid)} (pid {pid})"


def _owner_by_proc(port: int) -> int | None:
    links = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for directory in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            if any(os.readlink(link) in links for link in directory.iterdir()):  # noqa: PTH115 - not a path
                return int(directory.parent.name)
    return None


def _listening_inodes(port: int) -> set[str]:
    rows = [
        row.split()
        for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
        if table.exists()
        for row in table.read_text().splitlines()[1:]
    ]
    return {row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port}


def _owner_by_lsof(port: int) -> int | None:
    if shutil.which("lsof") is None:
        return None
    command = ["lsof", "-nP", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"]
    found = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
    return int(found[0]) if found else None


def _name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "another program"
