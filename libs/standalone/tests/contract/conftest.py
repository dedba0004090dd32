"""A stack of its own for a test: a temporary home, free ports, and three stand-ins for the services.

The stand-ins are small programs with the services' module names, so that what is tested here is the stack; the real
services have their own tests, and `tests/e2e` runs all of it together.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from juinie_standalone.ports import free_ports

STAND_IN = """\
import http.server, os, signal, sys

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

if sys.argv[1:2] == ["keys"]:
    print("jn_" + "-".join(sys.argv[3:]).replace("--", ""))
elif sys.argv[1:2] == ["migrate"]:
    print("migrated")
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.HTTPServer(("127.0.0.1", int(os.environ["{setting}"])), Healthy).serve_forever()
"""
SETTINGS = {
    "juinie_api": "JUINIE_API_PORT",
    "juinie_publisher": "JUINIE_PUBLISHER_PORT",
    "juinie_stream_gateway": "JUINIE_STREAM_PORT",
}


@dataclass
class Terminal:
    """Runs `juinie-standalone` as a person would, in one home."""

    home: Path
    modules: Path
    environment: dict[str, str]

    def run(self, *arguments, **environment):
        command = [sys.executable, "-m", "juinie_standalone", *arguments]
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env=self.environment | environment,
            timeout=100,
        )

    def ok(self, *arguments, **environment):
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *arguments, **environment):
        """The one line on stderr of a command that has to fail."""
        done = self.run(*arguments, **environment)
        assert done.returncode != 0
        lines = [line for line in done.stderr.splitlines() if line.startswith("juinie: ")]
        assert len(lines) == 1, done.stderr
        assert "Traceback" not in done.stderr
        return lines[0]

    def pid(self, name):
        return int((self.home / "pids" / f"{name}.pid").read_text())

    def pids(self):
        return {path.stem: int(path.read_text()) for path in (self.home / "pids").glob("*.pid")}

    def replace_service(self, module, program):
        (self.modules / f"{module}.py").write_text(program)


@pytest.fixture
def terminal(tmp_path):
    modules = tmp_path / "modules"
    modules.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUINIE_API", "JUINIE_HOME"))
    }
    kept.pop("DATABASE_URL", None)
    kept.pop("KAFKA_BOOTSTRAP_SERVERS", None)
    ports = {setting: str(port) for setting, port in zip(SETTINGS.values(), free_ports(3), strict=True)}
    home = tmp_path / "home"
    made = Terminal(home, modules, kept | ports | {"JUINIE_HOME": str(home), "PYTHONPATH": str(modules)})
    for module, setting in SETTINGS.items():
        made.replace_service(module, STAND_IN.replace("{setting}", setting))
    yield made
    made.run("down")
