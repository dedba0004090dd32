"""The reference pages say what the code says: settings, telemetry, routes."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"

TELEMETRY = {
    "Several processes": "libs/shared/src/juinie_shared/runtime/process_telemetry.py",
    "api": "services/api/src/juinie_api/telemetry.py",
    "publisher": "services/publisher/src/juinie_publisher/telemetry.py",
    "stream-gateway": "services/stream-gateway/src/juinie_stream_gateway/telemetry.py",
}
METRICS = {"Counter", "Gauge", "Histogram", "PlainHistogram"}
LOG_LEVELS = {"debug", "info", "warning", "error", "exception"}
SAY_NO = {"problem", "Refused"}
INNER_CODES = {
    "unavailable", "refused", "misconfigured",  # of the classes above those that are raised
    "kafka_unavailable", "bad_record", "dev_key_outside_dev", "port_taken", "sessions_shared",  # which no request can meet
}  # fmt: skip


def section(page: Path, title: str) -> str:
    """A page's part under the heading `title`."""
    match = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL
    )
    assert match, f"{page.name} has no heading {title}"
    return match[1]


def strings(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def names_in(source: str) -> set[str]:
    """The names in a `telemetry.py`: constants, metrics as they are exposed, log events, but not the service's own name."""
    names = set[str]()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                if name.isupper() and name != "SERVICE":
                    names.add(text)
            case ast.Call(func=ast.Name(id=kind), args=[ast.Constant(value=str(text)), *_]) if (
                kind in METRICS
            ):
                names.add(text if kind != "Counter" or text.endswith("_total") else f"{text}_total")
            case ast.Call(func=ast.Attribute(attr=level), args=[event, *_]) if level in LOG_LEVELS:
                names.update(strings(event))
    return names


def codes_in(source: str) -> set[str]:
    """The problem codes in a source: of errors' classes, of refusals, and of refusals kept as a constant."""
    codes = set[str]()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Assign(targets=[ast.Name(id="code")], value=code):
                codes.update(strings(code))
            case ast.AnnAssign(target=ast.Name(id="code"), value=ast.Constant() as code):
                codes.update(strings(code))
            case ast.Call(func=ast.Name(id=name), args=[_, code, *_]) if name in SAY_NO:
                codes.update(strings(code))
            case ast.Tuple(elts=[ast.Constant(value=int()), ast.Constant(value=str(code)), ast.Constant()]):
                codes.add(code)
    return codes


@pytest.mark.parametrize("service", TELEMETRY)
def test_telemetry_page_has_each_name_and_no_other(service: str) -> None:
    told = re.findall(r"^\| `([^`]+)` \|", section(REFERENCE / "telemetry.md", service), re.MULTILINE)

    assert sorted(told) == sorted(names_in((ROOT / TELEMETRY[service]).read_text()))


def test_settings_page_is_as_generated() -> None:
    generated = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "settings"], check=True, capture_output=True, text=True
    ).stdout

    assert (REFERENCE / "settings.md").read_text() == generated, "make docs"


def test_protocol_names_each_route_and_no_other() -> None:
    page = (REFERENCE / "protocol.md").read_text()
    told = {(method, path) for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?]*)`", page)}
    openapi = json.loads((REFERENCE / "openapi.json").read_text())
    described = {
        (method.upper(), path)
        for path, operations in openapi["paths"].items()
        for method in operations
        if method in {"get", "post", "put", "patch", "delete"}
    }
    elsewhere = ("/v1/runs/{run_id}/stream", "/openapi.json", "/docs", "/livez", "/readyz", "/metrics")
    not_described = {("GET", path) for path in elsewhere}

    assert told - not_described == described


def test_protocol_names_each_problem_code_and_no_other() -> None:
    sources = [*ROOT.glob("services/*/src/**/*.py"), *ROOT.glob("libs/shared/src/**/*.py")]
    codes = set[str]().union(*(codes_in(source.read_text()) for source in sources))
    page = (REFERENCE / "protocol.md").read_text()
    table = page.split("### 2.8 ")[1].split("### 2.9 ")[0]
    told = {
        code
        for row in re.findall(r"^\| \d.*\| (.*) \|$", table, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", row)
    }
    reasons = set(re.findall(r"`(\w+)`", page.split("Reasons are ")[1].split("the codes of 503")[0]))

    assert told == codes - INNER_CODES - (reasons - told)
    assert INNER_CODES.isdisjoint(told)
