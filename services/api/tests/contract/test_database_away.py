"""While Postgres is away, hangs or is not ready for us: an honest 503 in time, and no restart afterwards."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from juinie_api.app import serve
from juinie_api.core import waker
from juinie_api.settings import Settings
from juinie_shared.db.keys import ensure_dev_key
from juinie_shared.domain.errors import DevKeyOutsideDev, PortTaken
from juinie_testkit.crowded import crowded_server
from juinie_testkit.proxy import Proxy
from juinie_testkit.running import running
from juinie_testkit.seed import Seed

PATIENCE_SECONDS = 15
"""A client's. What is promised is 5 s; the limits in `app.py` add up to less, on a machine that has time."""


@pytest.fixture
async def proxy(database_url: str) -> AsyncGenerator[Proxy]:
    async with Proxy.before(database_url) as between:
        yield between


def through(settings: Settings, proxy: Proxy) -> Settings:
    url = proxy.url_through(settings.database_url.get_secret_value())
    return Settings.model_validate({**settings.model_dump(), "database_url": url})


async def ready(client: Any) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def test_requests_are_refused_while_the_database_is_away(settings: Settings, proxy: Proxy, pool: Any):
    import httpx

    from juinie_testkit.waits import eventually

    key = await Seed(pool).key()
    headers = {"Authorization": f"Bearer {key.text}"}
    async with (
        running(serve, through(settings, proxy)) as service,
        httpx.AsyncClient(
            base_url=service.url, headers=headers, trust_env=False, timeout=PATIENCE_SECONDS
        ) as client,
    ):
        run_id = (await client.post("/v1/runs", json={"agent": "a"})).json()["run_id"]
        append = {"events": [{"type": "x"}]}
        for away in (proxy.refuse, proxy.hang):
            gone = away()
            if gone is not None:
                await gone
            answers = await asyncio.gather(
                client.post(f"/v1/runs/{run_id}/events", json=append),
                client.get(f"/v1/runs/{run_id}"),
                client.get("/v1/runs", headers={"Authorization": "Bearer jn_not_seen_before"}),
            )
            for answer in answers:
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["content-type"] == "application/problem+json"
            await eventually(lambda: _is_not_ready(client), 10, "not ready")
            assert (await client.get("/livez")).status_code == 200
            await proxy.resume()
            await eventually(lambda: ready(client), 20, "ready again")
            assert (await client.post(f"/v1/runs/{run_id}/events", json=append)).status_code == 201


async def test_workers_who_wait_already_hear_of_a_database_that_hangs(
    settings: Settings, proxy: Proxy, pool: Any
):
    """And not, at the end of their wait, that there is no run."""
    import httpx

    from juinie_testkit.waits import eventually

    key = await Seed(pool).key()
    headers = {"Authorization": f"Bearer {key.text}"}
    async with (
        running(serve, through(settings, proxy)) as service,
        httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False, timeout=60) as client,
    ):
        claim = {"worker_id": "w", "agents": ["a"], "lease_seconds": 30, "wait_seconds": 30}
        workers = [asyncio.create_task(client.post("/v1/claims", json=claim)) for _ in range(3)]

        async def waiting() -> bool:
            return "juinie_api_claims_waiting 3.0" in (await client.get("/metrics")).text

        await eventually(waiting, 10, "all of them wait")
        proxy.hang()
        answers = await asyncio.gather(*workers)
        assert {answer.status_code for answer in answers} == {503}


async def refused(proxy: Proxy) -> None:
    await proxy.refuse()


async def hung(proxy: Proxy) -> None:
    proxy.hang()


AWAY = [pytest.param(refused, id="refuses"), pytest.param(hung, id="hangs")]
POLLS = [
    pytest.param("/wait?timeout_seconds={seconds}", id="end"),
    pytest.param("/events?after_seq=3&wait_seconds={seconds}", id="events"),
]


async def until_polling(client: Any) -> None:
    from juinie_testkit.waits import eventually

    async def polling() -> bool:
        return "juinie_api_long_polls 1.0" in (await client.get("/metrics")).text

    await eventually(polling, 10, "it waits")


@asynccontextmanager
async def poll_under_way(
    api: Any, settings: Settings, proxy: Proxy, poll: str, away: Any
) -> AsyncGenerator[asyncio.Task[Any]]:
    """The database went away under it, and its run has ended since, by another api."""
    run_id = (await api.create())["run_id"]
    await api.append(run_id)
    async with (
        running(serve, through(settings, proxy)) as service,
        api.client_of_service(service) as client,
    ):
        waiting = asyncio.create_task(client.get(f"/v1/runs/{run_id}{poll}"))
        await until_polling(client)
        await away(proxy)
        assert (await api.finish(run_id)).status_code == 200
        yield waiting


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("poll", POLLS)
async def test_who_waits_already_for_a_run_hears_of_a_database_that_is_away(
    api: Any, settings: Settings, proxy: Proxy, poll: str, away: Any
):
    """Long before the end of the wait."""
    async with poll_under_way(api, settings, proxy, poll.format(seconds=29), away) as waiting:
        async with asyncio.timeout(20):
            answer = await waiting
        assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), answer.text
        assert answer.json()["code"] in {"database_unavailable", "database_busy"}


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("poll", POLLS)
async def test_who_has_waited_in_vain_is_told_nothing_from_before_the_database_went_away(
    api: Any, settings: Settings, proxy: Proxy, poll: str, away: Any, monkeypatch: pytest.MonkeyPatch
):
    """Also where the wait is over before anybody is told."""
    monkeypatch.setattr(waker, "UNSEEN_SECONDS", 60)
    async with poll_under_way(api, settings, proxy, poll.format(seconds=8), away) as waiting:
        answer = await waiting
        assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), answer.text


async def test_requests_are_refused_while_no_connection_is_left(
    settings: Settings, database_url: str, pool: Any
):
    import httpx

    from juinie_testkit.waits import eventually

    key = await Seed(pool).key()
    headers = {"Authorization": f"Bearer {key.text}"}
    async with (
        crowded_server(database_url) as server,
        running(serve, settings.model_copy(update={"database_url": SecretStr(server.url)})) as service,
        httpx.AsyncClient(
            base_url=service.url, headers=headers, trust_env=False, timeout=PATIENCE_SECONDS
        ) as client,
    ):
        run_id = (await client.post("/v1/runs", json={"agent": "a"})).json()["run_id"]
        append = {"events": [{"type": "x"}]}
        await server.full()
        answers = await asyncio.gather(
            *(client.post(f"/v1/runs/{run_id}/events", json=append) for _ in range(20))
        )
        for answer in answers:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
        await eventually(lambda: _is_not_ready(client), 10, "not ready")
        assert (await client.get("/livez")).status_code == 200
        await server.free()
        await eventually(lambda: ready(client), 20, "ready again")
        assert (await client.post(f"/v1/runs/{run_id}/events", json=append)).json()["first_seq"] == 3


REFUSAL = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'as the server would' USING ERRCODE = '{state}'; END $$
"""
REFUSE = "CREATE TRIGGER refuse BEFORE INSERT ON run_event FOR EACH ROW EXECUTE FUNCTION refuse()"


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("53100", id="disk full"),
        pytest.param("53200", id="out of memory"),
        pytest.param("40P01", id="deadlock"),
        pytest.param("40001", id="serialization failure"),
        pytest.param("25006", id="read only, as a standby"),
    ],
)
async def test_what_the_server_cannot_do_now_is_a_503_that_wrote_nothing_and_may_be_repeated(
    api: Any, state: str
):
    run_id = (await api.create())["run_id"]
    once = {"Idempotency-Key": "once"}
    await api.rows(REFUSAL.format(state=state))
    await api.rows(REFUSE)
    refused = await api.append(run_id, "a", "b", headers=once)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1"), refused.text
    assert [event["seq"] for event in await api.events(run_id)] == [1]  # reads go on

    await api.rows("DROP TRIGGER refuse ON run_event")
    stored = await api.append(run_id, "a", "b", headers=once)
    assert (stored.status_code, stored.json()["first_seq"], stored.json()["last_seq"]) == (201, 3, 4)
    assert "idempotency-replayed" not in stored.headers
    assert [event["seq"] for event in await api.events(run_id)] == [1, 2, 3, 4]


UNDONE = """
    CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('undone') <= {times} THEN RAISE EXCEPTION 'as the server would' USING ERRCODE = '{state}'; END IF;
        RETURN coalesce(NEW, OLD);
    END $$
"""
UNDO = "CREATE TRIGGER undo BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION undo()"


async def ask_to_append(api: Any, run_id: str) -> int:
    return (await api.append(run_id)).status_code


async def ask_to_cancel(api: Any, run_id: str) -> int:
    return (await api.client.post(f"/v1/runs/{run_id}/cancel")).status_code


async def ask_to_finish(api: Any, run_id: str) -> int:
    return (await api.finish(run_id)).status_code


async def ask_to_create(api: Any, _: str) -> int:
    return (await api.client.post("/v1/runs", json={"agent": "another"})).status_code


async def ask_to_claim(api: Any, _: str) -> int:
    return (await api.claim("agent")).status_code


async def ask_to_pause(api: Any, _: str) -> int:
    return (await api.client.post("/v1/admin/outbox/pause")).status_code


@pytest.mark.parametrize(
    "state", [pytest.param("40P01", id="deadlock"), pytest.param("40001", id="serialization")]
)
@pytest.mark.parametrize(
    ("ask", "table", "answer"),
    [
        pytest.param(ask_to_append, "run_event", 201, id="append"),
        pytest.param(ask_to_finish, "run_event", 200, id="finish"),
        pytest.param(ask_to_cancel, "run_event", 202, id="cancel"),
        pytest.param(ask_to_create, "run_event", 201, id="create"),
        pytest.param(ask_to_claim, "run_event", 200, id="claim"),
        pytest.param(ask_to_pause, "relay_state", 202, id="pause"),
    ],
)
async def test_what_the_server_undid_three_times_is_done_again_unseen(
    api: Any, ask: Any, table: str, answer: int, state: str
):
    run_id = (await api.create())["run_id"]
    await api.rows("CREATE SEQUENCE undone")  # counts all tries: no rollback takes that back
    await api.rows(UNDONE.format(times=3, state=state))
    await api.rows(UNDO.format(table=table))
    assert await ask(api, run_id) == answer
    assert (await api.rows("SELECT last_value > 3 AS so_often FROM undone"))[0]["so_often"]
    events = await api.events(run_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("ask", [ask_to_append, ask_to_cancel])
async def test_what_goes_on_being_undone_is_a_503(api: Any, ask: Any):
    run_id = (await api.create())["run_id"]
    await api.rows("CREATE SEQUENCE undone")
    await api.rows(UNDONE.format(times=50, state="40001"))
    await api.rows(UNDO.format(table="run_event"))
    assert await ask(api, run_id) == 503
    assert [event["seq"] for event in await api.events(run_id)] == [1]


async def _is_not_ready(client: Any) -> bool:
    return not await ready(client)


async def test_the_api_starts_before_its_schema_and_says_what_it_waits_for(
    empty_database_url: str, signing_keys: str
):
    import httpx

    from juinie_shared.db.migrate import migrate
    from juinie_testkit.waits import eventually

    settings = Settings.model_validate(
        {"database_url": empty_database_url, "env": "test", "port": 0, "stream_token_keys": signing_keys}
    )
    async with (
        running(serve, settings, wait_ready=False) as service,
        httpx.AsyncClient(base_url=service.url, trust_env=False) as client,
    ):

        async def says_so() -> bool:
            return "juinie-api migrate" in (await client.get("/readyz")).text

        await eventually(says_so, 10, "the schema in /readyz")
        refused = await client.get("/v1/runs", headers={"X-Api-Key": "jn_any"})
        assert (refused.status_code, refused.json()["code"]) == (503, "schema_behind")
        await migrate(empty_database_url)
        await eventually(lambda: ready(client), 20, "ready")


async def test_outside_development_it_refuses_the_development_key(settings: Settings, pool: Any):
    async with pool.connection() as connection:
        await ensure_dev_key(connection)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.timeout(20):
            await serve(settings, asyncio.Event())
    assert caught.group_contains(DevKeyOutsideDev)


async def test_a_taken_port_is_told_at_once(settings: Settings, api: Any):
    taken = settings.model_copy(update={"port": api.service.port})
    with pytest.raises(PortTaken):
        await serve(taken, asyncio.Event())
