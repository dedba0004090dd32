"""What others hear of an append: the publisher its wake-up, the trace its id; and that nobody hears a secret."""

import asyncio
from typing import Any

import httpx
import pytest

from juinie_api import telemetry
from juinie_api.app import serve
from juinie_api.core import listener
from juinie_api.settings import Settings
from juinie_shared.contracts.names import OUTBOX_CHANNEL
from juinie_shared.db.pool import Connection, connect
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.proxy import Proxy
from juinie_testkit.raw_stream import connect_raw
from juinie_testkit.running import running
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.waits import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


async def test_the_publisher_is_woken_after_each_commit(api: Any, database_url: str):
    run_id = (await api.create())["run_id"]
    listener = await connect(database_url, "listener")
    woken = asyncio.Event()
    await listener.add_listener(OUTBOX_CHANNEL, lambda *_: woken.set())

    async def wakes(request: Any) -> None:
        woken.clear()
        await request
        await asyncio.wait_for(woken.wait(), 10)

    await wakes(api.create())
    await wakes(api.append(run_id))
    await wakes(api.client.post(f"/v1/runs/{run_id}/cancel"))
    await wakes(api.finish(run_id))
    await _terminate(api, "NOTIFY")
    other = (await api.create())["run_id"]
    assert (await api.append(other)).status_code == 201, "a lost connection holds nothing up"
    await wakes(api.append(other))
    await listener.close()


async def test_a_wake_up_that_could_not_be_sent_is_counted(api: Any):
    failures = "juinie_api_notify_failures_total"
    run_id = (await api.create())["run_id"]
    await eventually(lambda: _terminate(api, "NOTIFY"), 10, "a connection that has sent a wake-up")
    assert await metric(api.service.url, failures) == 0
    assert (await api.append(run_id)).status_code == 201
    await until_metric(api.service.url, failures, 1)


async def test_a_connection_too_many_is_closed_as_it_comes_and_counted(settings: Settings):
    few = settings.model_copy(update={"max_connections": 2})
    async with running(serve, few) as service, httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        text = (await client.get(f"{service.url}/metrics")).text
        assert "juinie_api_connections_refused_total 0.0" in text
        taken, too_many = await connect_raw(service.port), await connect_raw(service.port)
        assert await too_many.read_all() == b""
        text = (await client.get(f"{service.url}/metrics")).text  # on the connection that it has
        assert "juinie_api_connections_refused_total 1.0" in text
        taken.leave()
        too_many.leave()


async def test_a_long_poll_goes_on_without_the_listening_connection(api: Any):
    run_id = (await api.create())["run_id"]
    poll = asyncio.create_task(api.events(run_id, after_seq=1, wait_seconds=30))
    await eventually(lambda: _terminate_listener(api), 10, "a listening connection to terminate")
    await api.append(run_id)
    assert [event["seq"] for event in await poll] == [2, 3]


async def test_a_listening_connection_whose_other_end_is_gone_is_given_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener, "CHECK_SECONDS", 1.0)
    made = list[Connection]()
    async with Proxy.before(database_url) as proxy, asyncio.TaskGroup() as tasks:

        async def connect_through() -> Connection:
            made.append(await connect(proxy.url_through(database_url), "listener"))
            return made[-1]

        heard, lost = list[str](), list[str]()
        listens = {"a": lambda: heard.append("a"), "b": lambda: heard.append("b")}
        listening = tasks.create_task(listener.Listener(connect_through, listens, lost.append).run())
        await eventually(lambda: heard == ["a", "b"], 10, "both channels listened to")
        proxy.hang()
        await eventually(lambda: made[0].is_closed(), 10, "the end of a connection that nobody answers")
        await proxy.resume()
        await eventually(lambda: len(made) > 1, 10, "another connection")
        await eventually(lambda: heard == ["a", "b"] * 2, 10, "what may have been missed")
        assert lost == [telemetry.LISTEN_LOST]
        listening.cancel()


async def _terminate_listener(api: Any) -> list[Any]:
    return await _terminate(api, "LISTEN")


async def _terminate(api: Any, statement: str) -> list[Any]:
    """The sessions whose last statement began so, and is over: one that is cut short fails by itself."""
    return await api.rows(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE starts_with(query, $1) AND state = 'idle' AND datname = current_database()""",
        statement,
    )


async def test_the_requests_trace_goes_with_its_events(api: Any):
    headers = {"traceparent": TRACEPARENT}
    created = await api.client.post("/v1/runs", json={"agent": "a"}, headers=headers)
    run_id = created.json()["run_id"]
    await api.append(run_id, headers=headers)
    await api.client.post(f"/v1/runs/{run_id}/cancel", headers=headers)
    await api.finish(run_id, headers=headers)
    rows = await api.rows("SELECT traceparent FROM outbox ORDER BY id")
    assert len(rows) == 4
    spans = {row["traceparent"].split("-")[2] for row in rows}
    assert all(row["traceparent"].startswith(f"00-{TRACE}-") for row in rows)
    assert len(spans) == 4
    assert "00f067aa0ba902b7" not in spans, "each request has a span of its own"
    refused = await api.append(run_id, headers=headers)
    assert refused.json()["trace_id"] == TRACE


async def test_a_request_without_a_trace_gets_one(api: Any):
    await api.create()
    [row] = await api.rows("SELECT traceparent FROM outbox")
    assert len(row["traceparent"]) == 55


async def test_browsers_of_allowed_origins_may_call(settings: Any, api: Any):
    from juinie_api.app import serve
    from juinie_testkit.running import running

    allowing = settings.model_copy(update={"cors_origins": ("https://app.example",)})
    async with running(serve, allowing) as service:
        for path, status in (("/v1/runs", 200), ("/v1/nothing", 404)):
            answer = await api.client.get(service.url + path, headers={"Origin": "https://app.example"})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
                status,
                "https://app.example",
            )
            other = await api.client.get(service.url + path, headers={"Origin": "https://evil.example"})
            assert "access-control-allow-origin" not in other.headers
