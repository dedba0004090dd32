"""Valid requests, as bytes, for every route that a service has: what the byte-level fuzzer makes wrong.

The api's come from its OpenAPI document, so that a new route is fuzzed from the day that it is there.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any
from uuid import UUID

_QUERY = {
    "after_seq": "1", "limit": "2", "types": "a,b", "wait_seconds": "0", "timeout_seconds": "0", "status": "running", "agent": "agent",
    "thread_id": "t-1", "created_after": "2026-01-01T00:00:00Z", "created_before": "2036-01-01T00:00:00Z", "cursor": "",
}  # fmt: skip
_EVENT = {"type": "a", "data": {"n": 1, "text": "ä\u2028\\u0000"}}
_BODIES: dict[str, dict[str, Any]] = {
    "runs": {"agent": "agent", "thread_id": "t-1", "input": {"a": [1, None]}, "metadata": {"b": "c"}},
    "events": {"events": [_EVENT, {"type": "b"}, {"type": "c", "time": "2026-01-01T00:00:00+01:00"}]},
    "finish": {"status": "success", "output": {"x": 1}, "events": [_EVENT]},
    "cancel": {"reason": "enough"},
    "stream-tokens": {"ttl_seconds": 60},
    "claims": {"agents": ["agent"], "worker_id": "w", "lease_seconds": 5, "wait_seconds": 0},
    "heartbeat": {"lease_seconds": 5},
    "republish": {"from_seq": 1, "to_seq": 2},
}
_PROBES = ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/nowhere")


def api_requests(document: Mapping[str, Any], key: str, run_ids: Sequence[str]) -> list[bytes]:
    """Two for each operation of the document, one with all it may carry; and the routes beside it."""
    ids = cycle(run_ids)
    made = [_request("GET", path) for path in _PROBES]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            filled = re.sub(r"{(\w+)}", lambda match: next(ids) if match[1] == "run_id" else "t-1", path)
            body = _body(path) if "requestBody" in operation else None
            made.append(_request(method.upper(), filled, key, body=body))
            made.append(_request(method.upper(), filled + _query(operation), key, _headers(operation), body))
            made.append(_request("OPTIONS", filled, None, {"Origin": "http://localhost:5173"}))
    return made


def stream_requests(key: str, token: str, run_ids: Sequence[str]) -> list[bytes]:
    """For the gateway: by key and by token, at several positions, with and without a filter."""
    made = [_request("GET", path) for path in _PROBES]
    for run_id in run_ids:
        path = f"/v1/runs/{run_id}/stream"
        made += [
            _request("GET", path, key),
            _request("GET", f"{path}?after_seq=2&types=a,b", key),
            _request("GET", f"{path}?after_seq=tail", key, {"Origin": "http://localhost:5173"}),
            _request("GET", path, key, {"Last-Event-ID": "3", "Accept": "text/event-stream"}),
            _request("GET", f"{path}?token={token}"),
            _request("OPTIONS", path, None, {"Origin": "http://localhost:5173"}),
        ]
    return made


def _request(
    method: str,
    target: str,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"] if body is not None else []
    return "\r\n".join([*lines, "", ""]).encode() + content


def _body(path: str) -> dict[str, Any]:
    if path == "/v1/admin/republish":
        return {name: _QUERY[name] for name in ("created_after", "created_before")}
    return _BODIES.get(path.rpartition("/")[2], {})


def _query(operation: Mapping[str, Any]) -> str:
    names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    wanted = "&".join(f"{name}={_QUERY[name]}" for name in names if _QUERY.get(name))
    return f"?{wanted}" if wanted else ""


def _headers(operation: Mapping[str, Any]) -> dict[str, str]:
    known = {"Idempotency-Key": "key-1", "Juinie-Lease": str(UUID(int=7)), "If-None-Match": '"x"'}
    names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"]
    return {name: known[name] for name in names if name in known}
