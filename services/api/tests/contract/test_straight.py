"""The straight way for appends and FastAPI's own give the same: answers, spans, metrics. Only the costs differ."""

from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from juinie_api import app as api_app
from juinie_api.app import serve
from juinie_api.edges import http
from juinie_testkit.running import running

JSON = {"Content-Type": "application/json"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
GOOD = b'{"events":[{"type":"x","data":{"n":1}}]}'

REQUESTS: dict[str, tuple[bytes, dict[str, str]]] = {
    "good": (GOOD, JSON),
    "with white space and time": (
        b'{ "start": false, "events": [ {"time":"2026-01-01T00:00:00Z", "type":"x"} ] }',
        JSON,
    ),
    "traced": (GOOD, {**JSON, "traceparent": TRACEPARENT, "tracestate": "a=b"}),
    "once": (GOOD, {**JSON, "Idempotency-Key": "k"}),
    "bad key": (GOOD, {**JSON, "Idempotency-Key": "k" * 256}),
    "repeated name": (b'{"events":[{"type":"x","type":"x"}]}', JSON),
    "many faults": (b'{"events":[{"type":"run.x"},{"type":"","data":1,"q":2}],"start":1}', JSON),
    "no events": (b'{"events":[]}', JSON),
    "lone surrogate": (rb'{"events":[{"type":"x","data":"\ud800"}]}', JSON),
    "no json": (b"{", JSON),
    "another type": (GOOD, {"Content-Type": "text/plain"}),
    "another coding": (GOOD, {**JSON, "Content-Encoding": "br"}),
    "broken gzip": (GOOD, {**JSON, "Content-Encoding": "gzip"}),
    "not acceptable": (GOOD, {**JSON, "Accept": "text/html"}),
    "lost lease": (GOOD, {**JSON, "Juinie-Lease": "00000000-0000-4000-8000-000000000000"}),
    "no key": (GOOD, {**JSON, "Authorization": ""}),
    "another key": (GOOD, {**JSON, "Authorization": "Bearer jn_nobody"}),
}
PATHS = (
    "/v1/runs/{run}/events",
    "/v1/runs/nonsense/events",
    "/v1/runs/{unknown}/events",
    "/v1/runs/{run}/events?q=1",
)


@pytest.fixture
async def ways(
    api: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[dict[str, tuple[httpx.AsyncClient, InMemorySpanExporter]]]:
    """Two apis, one with the straight way and one without, each with the spans that it made."""
    made: dict[str, tuple[httpx.AsyncClient, InMemorySpanExporter]] = {}
    exporters = {"straight": InMemorySpanExporter(), "fastapi": InMemorySpanExporter()}

    def tracing(way: str) -> TracerProvider:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporters[way]))
        return provider

    monkeypatch.setattr(api_app, "configure_tracing", lambda _: tracing("straight"))
    async with running(serve, settings) as straight, api.client_of_service(straight) as straight_client:
        monkeypatch.setattr(api_app, "configure_tracing", lambda _: tracing("fastapi"))
        monkeypatch.setattr(http, "Straight", lambda app, *_: app)
        async with running(serve, settings) as fastapi, api.client_of_service(fastapi) as fastapi_client:
            made["straight"] = straight_client, exporters["straight"]
            made["fastapi"] = fastapi_client, exporters["fastapi"]
            yield made


def told(span: ReadableSpan) -> Any:
    """A span without what differs from one request to the next."""
    attributes = {
        name: value
        for name, value in (span.attributes or {}).items()
        if name not in {"server.port", "url.path", "url.query"}
    }
    parent = span.parent and (span.parent.trace_id, span.parent.span_id)
    return span.name, span.kind, attributes, span.status.status_code, parent


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_ways_give_the_same(api: Any, ways: Any, name: str) -> None:
    body, headers = REQUESTS[name]
    for path in PATHS:
        seen: dict[str, Any] = {}
        for way, (client, spans) in ways.items():
            spans.clear()
            place = path.format(run=(await api.create())["run_id"], unknown=uuid4())
            answer = await client.post(place, content=body, headers=headers)
            problem = answer.json() | {"trace_id": None}
            seen[way] = (
                answer.status_code, problem, set(answer.headers), [told(span) for span in spans.get_finished_spans()],
            )  # fmt: skip
        assert seen["straight"] == seen["fastapi"], path


@pytest.mark.parametrize("host", ["a:b", "a:99999", "[::1", "::", ""])
async def test_a_host_that_cannot_be_one_is_refused_as_anybody_else(ways: Any, host: str) -> None:
    answers = {
        way: await client.post(PATHS[1], content=GOOD, headers={**JSON, "Host": host, "Authorization": ""})
        for way, (client, _) in ways.items()
    }
    assert {answer.status_code for answer in answers.values()} <= {400, 401}
    assert answers["straight"].status_code == answers["fastapi"].status_code


async def test_both_ways_count_the_same(api: Any, ways: Any) -> None:
    counted: dict[str, list[str]] = {}
    for way, (client, _) in ways.items():
        run_id = (await api.create())["run_id"]
        for body in (GOOD, b"{"):
            await client.post(f"/v1/runs/{run_id}/events", content=body, headers=JSON)
        lines = (await client.get("/metrics")).text.splitlines()
        counted[way] = [line for line in lines if line.startswith("juinie_api_request_seconds_count")]
    assert counted["straight"] == counted["fastapi"] != []
