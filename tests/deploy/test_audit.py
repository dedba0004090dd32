"""The audit of the locks: a known vulnerability fails it, and a source that does not answer is told and is no pass by silence."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, override

import pytest

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"


class Sources(ThreadingHTTPServer):
    """OSV and an npm registry, which know of vulnerabilities in the packages that a test names."""

    def __init__(self, *vulnerable: str) -> None:
        self.vulnerable, self.asked = vulnerable, 0
        super().__init__(("127.0.0.1", 0), _Handler)

    def osv(self, package: dict[str, Any]) -> dict[str, Any]:
        if package["name"] not in self.vulnerable:
            return {}
        fixed = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999"}]}]
        affected = [{"package": package, "ranges": fixed}]
        return {"vulns": [{"id": "PYSEC-0000-1", "summary": "planted", "affected": affected}]}

    def npm(self, packages: dict[str, Any]) -> dict[str, Any]:
        advisory = {"id": 1, "url": "https://example/GHSA-plan-ted1", "title": "planted", "severity": "high", "vulnerable_versions": "*"}  # fmt: skip
        return {name: [advisory] for name in packages if name in self.vulnerable}


class _Handler(BaseHTTPRequestHandler):
    server: Sources

    def do_POST(self) -> None:
        self.server.asked += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        answer = self.server.osv(asked["package"]) if self.path == "/v1/query" else self.server.npm(asked)
        self._send(200, answer)

    def do_GET(self) -> None:
        self._send(404, {})

    @override
    def log_message(self, *_: Any) -> None: ...

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def sources(*vulnerable: str) -> Generator[Sources]:
    server = Sources(*vulnerable)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield server
    server.shutdown()
    serving.join()
    server.server_close()


def audit(osv: str, npm: str, **environment: str) -> subprocess.CompletedProcess[str]:
    told = {"PIP_AUDIT_OSV_URL": f"{osv}/v1/query", "npm_config_registry": npm, "npm_config_offline": "false"}
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("JUINIE_", "PIP_AUDIT_"))
    }
    return subprocess.run(
        [sys.executable, "deploy/audit.py"], cwd=ROOT, env={**kept, **told, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_packages_without_a_known_vulnerability_pass_and_are_counted():
    with sources() as server:
        url = f"http://127.0.0.1:{server.server_port}"
        done = audit(url, url, JUINIE_REQUIRE_AUDIT="1")
    assert done.returncode == 0, done.stdout + done.stderr
    python, npm = done.stdout.splitlines()
    assert python.startswith("audited: requirements.lock, ")
    assert npm.startswith("audited: tests/conformance/node/package-lock.json, ")
    assert "NOT AUDITED" not in done.stdout
    assert server.asked >= 100, "each package of the Python lock, and the npm lock at once"


@pytest.mark.parametrize(
    ("package", "finding"), [("fastapi", "PYSEC-0000-1"), ("eventsource", "GHSA-plan-ted1")]
)
def test_known_vulnerability_fails_and_is_named(package: str, finding: str):
    with sources(package) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        done = audit(url, url)
    assert done.returncode == 1, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if f"  {package} " in line and finding in line]


def test_source_that_does_not_answer_is_told_and_fails_where_an_audit_is_required():
    done, required = audit(NOWHERE, NOWHERE), audit(NOWHERE, NOWHERE, JUINIE_REQUIRE_AUDIT="1")
    assert (done.returncode, required.returncode) == (0, 1)
    assert [line.split(":")[:2] for line in done.stdout.splitlines()] == [
        ["NOT AUDITED", " requirements.lock"],
        ["NOT AUDITED", " tests/conformance/node/package-lock.json"],
    ]
