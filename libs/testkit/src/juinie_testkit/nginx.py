"""A real nginx in front of an api and a gateway, with a configuration that a page prints."""

import os
from pathlib import Path

from juinie_testkit.backing.docker import free_port
from juinie_testkit.installed import InstalledProgram

_KINDS_OF_BODIES = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx(InstalledProgram):
    """One nginx.

    Args:
        directory: gets its files.
        printed: `upstream` and `server` blocks. Ports 8000 and 8001 become those given; TLS and HTTP/2, for which a
            certificate would have to be there, become plain HTTP. Nothing else is changed.
        more: further lines of the `http` block.
    """

    def __init__(
        self, directory: Path, printed: str, api_port: int, gateway_port: int, more: str = ""
    ) -> None:
        port, config = free_port(), directory / "nginx.conf"
        self.url = f"http://127.0.0.1:{port}"
        self.access_log = directory / "access.log"
        server = _without_tls(printed, port)
        for written, real in (("127.0.0.1:8000", api_port), ("127.0.0.1:8001", gateway_port)):
            if written not in server:
                raise ValueError(f"{written} is not in the configuration that is printed.")
            server = server.replace(written, f"127.0.0.1:{real}")
        http = [f"{kind}_temp_path {directory}/{kind};" for kind in _KINDS_OF_BODIES]
        http += [f"access_log {self.access_log};", more, server]
        config.write_text("\n".join([*_general(directory), "events { }", "http {", *http, "}", ""]))
        super().__init__("nginx", ["-e", "stderr", "-c", str(config)], port, directory / "nginx.log")


def _general(directory: Path) -> list[str]:
    as_root = ["user root;"] if os.geteuid() == 0 else []  # or its children could not reach the directory
    return ["daemon off;", "worker_processes 1;", f"pid {directory}/nginx.pid;", *as_root]


def _without_tls(printed: str, port: int) -> str:
    lines = [
        line
        for line in printed.splitlines()
        if line.split()[:1] not in (["http2"], ["ssl_certificate"], ["ssl_certificate_key"])
    ]
    plain = "\n".join(lines)
    if "listen 443 ssl;" not in plain:
        raise ValueError("The configuration that is printed does not listen on 443.")
    return plain.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
