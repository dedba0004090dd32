"""A real pgbouncer in front of a Postgres, as a child process."""

import os
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from juinie_testkit.backing.docker import free_port
from juinie_testkit.installed import InstalledProgram

type PoolMode = Literal["session", "transaction", "statement"]

_UNPRIVILEGED = "nobody"
"""pgbouncer does not run as root."""


class PgBouncer(InstalledProgram):
    """One pgbouncer, with its defaults but for what is given: `settings` are lines of `pgbouncer.ini`."""

    def __init__(self, directory: Path, server_url: str, pool_mode: PoolMode, **settings: object) -> None:
        port, config = free_port(), directory / "pgbouncer.ini"
        config.write_text(_config(server_url, port, {"pool_mode": pool_mode, **settings}))
        super().__init__("pgbouncer", [str(config)], port, directory / "pgbouncer.log")

    def url_through(self, database_url: str) -> str:
        """The URL of the same database by way of this pgbouncer."""
        parts = urlsplit(database_url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))


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
