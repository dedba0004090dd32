"""What the services say of themselves: one trace from the request to the socket, and never a payload, key or token."""

import httpx
import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.kafka import read_topic
from juinie_testkit.otlp import OtlpReceiver
from juinie_testkit.raw_stream import connect_raw
from juinie_testkit.seed import SeededKey
from juinie_testkit.stack import Stack
from juinie_testkit.waits import await_outbox_flush, await_stream_completion, eventually
from juinie_testkit.watcher import Watcher

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"

pytestmark = pytest.mark.timeout(300)


async def test_one_trace_leads_from_the_request_to_the_watcher(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey, spans: OtlpReceiver
):
    run_id = (await api.create())["run_id"]
    async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
        await watcher.until_caught_up()
        stack.publisher.freeze()  # so that the outbox row can be seen
        body = {"events": [{"type": "traced", "data": None}]}
        answer = await api.http.post(
            f"/v1/runs/{run_id}/events", json=body, headers={"traceparent": TRACEPARENT}
        )
        assert answer.status_code == 201
        async with stack_pool.connection() as connection:
            kept = await connection.fetchval(
                "SELECT traceparent FROM outbox WHERE run_id = $1 ORDER BY id DESC", run_id
            )
        stack.publisher.thaw()
        await api.finish(run_id)
        await await_stream_completion(watcher)
    await await_outbox_flush(stack_pool, run_id)

    records = await read_topic(
        stack.kafka_bootstrap_servers, stack.kafka_topic,
        lambda records: any(dict(record.headers).get("ce_id") == f"{run_id}:3".encode() for record in records),
    )  # fmt: skip
    record = next(record for record in records if dict(record.headers).get("ce_id") == f"{run_id}:3".encode())
    assert dict(record.headers)["traceparent"].decode() == kept

    wanted = {"juinie-api", "juinie-publisher", "juinie-stream-gateway"}
    await eventually(
        lambda: wanted <= {span.service for span in spans.of_trace(TRACE)},
        20,
        f"spans of trace {TRACE} from {sorted(wanted)}",
    )
    server_span = next(
        span
        for span in spans.of_trace(TRACE)
        if span.service == "juinie-api" and span.span_id == kept.split("-")[2]
    )
    assert (server_span.trace_id, server_span.parent_span_id) == (TRACE, "00f067aa0ba902b7")


async def test_no_payload_key_or_token_is_in_any_log_metric_or_span(
    stack: Stack, stack_pool: Pool, api: ApiClient, key: SeededKey, spans: OtlpReceiver
):
    secret = "canary-7f3e9a"
    run = await api.create(
        agent="agent", thread_id=f"{secret}-thread", input={secret: secret}, metadata={"note": f"{secret}-metadata"},
        idempotency_key=f"{secret}-create",
    )  # fmt: skip
    run_id = run["run_id"]
    token = await api.stream_token(run_id)
    async with Watcher(stack.gateway.url, run_id, token=token) as watcher:
        await api.append(run_id, ("token", f"{secret}-data"), idempotency_key=f"{secret}-append")
        await _go_wrong_in_every_way(stack, api, run_id, secret, token)
        await api.finish(run_id, "error", error={"message": f"{secret}-error"}, output=f"{secret}-output")
        await await_stream_completion(watcher)
    await await_outbox_flush(stack_pool, run_id)
    await eventually(
        lambda: any(run_id in span.text for span in spans.spans if span.service == "juinie-stream-gateway"),
        20,
        "the stream's span",
    )

    everything = {f"log of {service.name}": service.log.read_text() for service in stack.services}
    async with httpx.AsyncClient(trust_env=False) as http:
        for service in stack.services:
            everything[f"metrics of {service.name}"] = (await http.get(f"{service.url}/metrics")).text
    everything |= {f"span {span.name} of {span.service}": span.text for span in spans.spans}
    assert all(run_id not in text for where, text in everything.items() if where.startswith("metrics"))
    for what in (secret, key.text, token, token.rpartition(".")[2]):
        assert [where for where, text in everything.items() if what in text] == [], what


async def _go_wrong_in_every_way(stack: Stack, api: ApiClient, run_id: str, secret: str, token: str) -> None:
    """Refusals hold what was refused closer than successes do."""
    for body in (
        f'{{"events":[{{"type":"{secret} bad","data":1}}]}}',
        f'{{"{secret}":1}}',
        f'{{"events":"{secret}',
        f'"{secret}"',
    ):
        answer = await api.http.post(
            f"/v1/runs/{run_id}/events", content=body, headers={"Content-Type": "application/json"}
        )
        assert 400 <= answer.status_code < 500
        assert f"{secret} bad" not in answer.text
    async with httpx.AsyncClient(trust_env=False) as http:
        for service, path in ((stack.api, "/events"), (stack.gateway, "/stream")):
            url = f"{service.url}/v1/runs/{run_id}{path}"
            assert (await http.get(url, headers={"Authorization": f"Bearer {secret}"})).status_code == 401
        stream = f"{stack.gateway.url}/v1/runs/{run_id}/stream"
        assert (await http.get(stream, params={"token": f"{token}{secret}"})).status_code == 401
        assert (await http.get(stream, params={"token": token, "after_seq": secret})).status_code == 400
        assert (await http.get(f"{stack.api.url}/nowhere", params={"token": secret})).status_code == 404
    for service in stack.services:
        for head in (
            "HTTP/1.1\r\nHost: a\r\nHost: b",
            "HTTP/7.3\r\nHost: a",
            "HTTP/1.1\r\nHost : a",
            "HTTP/1.1\r\nHost: a\r\nReferer: /?token=",
        ):
            client = await connect_raw(int(service.url.rpartition(":")[2]))
            await client.send(
                f"GET /v1/runs/{run_id}/stream?token={token}{secret} {head}{secret}\r\n\r\n".encode()
            )
            answer = await client.read()
            client.leave()
            assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 503")), answer
            assert secret.encode() not in answer
    position = await api.http.get(f"/v1/runs/{run_id}/events", params={"after_seq": secret})
    assert (position.status_code, secret in position.text) == (400, False)
