"""Who may watch, and every answer that is no stream: for good, as a problem, with CORS (protocol 2, 5.1, 5.7, 6, 7)."""

import re
from uuid import uuid4

import httpx
import jwt
import pytest

from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.seed import Seed

ORIGIN = "http://localhost:5173"
ALLOWED = {
    "authorization", "x-api-key", "content-type", "idempotency-key", "juinie-lease", "last-event-id", "cache-control",
    "traceparent",
}  # fmt: skip


def _problem(answer, status, code=None):
    """This answer is a whole problem with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code", "trace_id"} <= problem.keys()
    assert problem["status"] == status
    assert re.fullmatch("[0-9a-f]{32}", problem["trace_id"])
    assert code in {None, problem["code"]}


@pytest.fixture
async def gateway(stack):
    """A client of the gateway without any credential."""
    async with httpx.AsyncClient(
        base_url=stack.gateway.url, timeout=30, verify=False, trust_env=False
    ) as client:
        yield client


@pytest.fixture
async def run_id(api):
    return await api.new_run()


@pytest.fixture
def path(run_id):
    return f"/v1/runs/{run_id}/stream"


@pytest.fixture
def auth(key):
    return {"Authorization": f"Bearer {key}"}


# ---- who may watch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer jn_no_such_key"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic am46am4="},
        {"X-Api-Key": "jn_no_such_key"},
    ],
    ids=["none", "unknown", "empty", "another-scheme", "unknown-x-api-key"],
)
async def test_401_without_a_key_that_is_known(gateway, path, headers):
    answer = await gateway.get(path, headers=headers)

    _problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_401_for_an_api_key_as_token(gateway, path, key):
    _problem(await gateway.get(path, params={"token": key}), 401, "unauthorized")


async def test_401_for_a_token_as_key(gateway, path, api, run_id):
    headers = {"Authorization": f"Bearer {await api.stream_token(run_id)}"}
    _problem(await gateway.get(path, headers=headers), 401, "unauthorized")


async def test_401_for_a_forged_token(gateway, path, api, run_id):
    token = await api.stream_token(run_id)
    claims = jwt.decode(token, options={"verify_signature": False})
    head = jwt.get_unverified_header(token)
    forged = jwt.encode(claims, "another key that is long enough for HS256", headers=head)
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": head["kid"]})

    for fake in (forged, unsigned, token[:-4], token + "A", "", "a.b.c", "é"):
        _problem(await gateway.get(path, params={"token": fake}), 401, "unauthorized")


async def test_401_for_a_token_past_its_time_and_the_leeway(gateway, path, api, run_id):
    claims = jwt.decode(await api.stream_token(run_id), options={"verify_signature": False})
    head, _, secret = SIGNING_KEYS.partition("=")
    claims["exp"] = claims["iat"] - 60
    expired = jwt.encode(claims, secret, headers={"kid": head})

    _problem(await gateway.get(path, params={"token": expired}), 401, "unauthorized")


async def test_a_token_watches_its_run_again_and_again(watch, api, run_id):
    token = await api.stream_token(run_id)
    for _ in range(3):
        async with watch(run_id, token=token) as watcher:
            await watcher.until_caught_up()


async def test_404_for_a_token_of_another_run(gateway, path, api):
    token = await api.stream_token(await api.new_run())
    _problem(await gateway.get(path, params={"token": token}), 404, "run_not_found")


async def test_x_api_key_is_as_good_as_authorization(gateway, path, key):
    async with gateway.stream("GET", path, headers={"X-Api-Key": key}) as answer:
        assert answer.status_code == 200


async def test_403_without_the_scope_read(gateway, path, make_key):
    headers = {"Authorization": f"Bearer {await make_key(scopes=('write',))}"}
    _problem(await gateway.get(path, headers=headers), 403, "scope_missing")


async def test_404_for_another_tenants_run(gateway, path, make_key):
    headers = {"Authorization": f"Bearer {await make_key(tenant='another')}"}
    _problem(await gateway.get(path, headers=headers), 404, "run_not_found")


# ---- what is there --------------------------------------------------------------------------------------------------------


NOBODY = "01930b7e-4c00-7a11-8b22-c3d4e5f60718"


@pytest.mark.parametrize("run", [NOBODY, "nonsense", "1", "%00", f"{{{NOBODY}}}"])
async def test_404_for_no_run(gateway, auth, run):
    _problem(await gateway.get(f"/v1/runs/{run}/stream", headers=auth), 404)


async def test_404_for_a_deleted_run(gateway, auth, api):
    run_id, _ = await api.finished_run()
    await api.delete(run_id)
    _problem(await gateway.get(f"/v1/runs/{run_id}/stream", headers=auth), 404, "run_not_found")


@pytest.mark.parametrize("elsewhere", ["/", "/v1/runs", "/v1/streams"])
async def test_404_elsewhere(gateway, auth, elsewhere):
    _problem(await gateway.get(elsewhere, headers=auth), 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_405_for_other_methods(gateway, path, auth, method):
    answer = await gateway.request(method, path, headers=auth)

    _problem(answer, 405, "method_not_allowed")
    assert {name.strip() for name in answer.headers["allow"].split(",")} == {"GET", "OPTIONS"}


async def test_405_for_head_without_a_body(gateway, path, auth):
    answer = await gateway.head(path, headers=auth)
    assert (answer.status_code, answer.content) == (405, b"")


@pytest.mark.parametrize("accept", ["application/json", "text/html", "text/event-stream;q=0", "image/*"])
async def test_406_when_accept_excludes_event_streams(gateway, path, auth, accept):
    _problem(await gateway.get(path, headers={**auth, "Accept": accept}), 406)


@pytest.mark.parametrize("accept", ["text/event-stream", "text/*", "*/*", "application/json, */*;q=0.1"])
async def test_accepts_that_fit(gateway, path, auth, accept):
    async with gateway.stream("GET", path, headers={**auth, "Accept": accept}) as answer:
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "follow=1",
        "after_seq=1&after_seq=2",
        "types=a&types=b",
        "types=",
        "types=a,,b",
        "types=a%0Ab",
        "after=1",
    ],
)
async def test_400_for_a_parameter_that_is_not_understood(gateway, path, auth, query):
    _problem(await gateway.get(f"{path}?{query}", headers=auth), 400)


async def test_400_for_two_credentials(gateway, path, auth, api, run_id):
    answer = await gateway.get(path, params={"token": await api.stream_token(run_id)}, headers=auth)
    _problem(answer, 400)


@pytest.mark.parametrize("name", ["Authorization", "Last-Event-ID"])
async def test_400_for_a_header_sent_twice(gateway, path, auth, name):
    twice = [(name, auth.get(name, "1"))] * 2
    others = [pair for pair in auth.items() if pair[0] != name]
    _problem(await gateway.get(path, headers=[*twice, *others]), 400)


async def test_order_of_refusals(gateway, auth, make_key):
    write_only = {"Authorization": f"Bearer {await make_key(scopes=('write',))}"}
    nowhere = f"/v1/runs/{uuid4()}/stream"

    _problem(await gateway.get(f"{nowhere}?after_seq=x"), 401)
    _problem(await gateway.get(f"{nowhere}?after_seq=x", headers=write_only), 400)
    _problem(await gateway.get(nowhere, headers=write_only), 403)
    _problem(await gateway.get(nowhere, headers=auth), 404)


async def test_a_refusal_repeats_nothing_of_the_request(gateway, path, auth):
    canary = "canary-5f1c"
    answers = [
        await gateway.get(path, params={"token": canary}),
        await gateway.get(path, params={"after_seq": canary}, headers=auth),
        await gateway.get(path, params={canary: canary}, headers=auth),
        await gateway.get(f"/v1/runs/{canary}/stream", headers=auth),
        await gateway.get(path, headers={**auth, "Accept": f"text/{canary}"}),
    ]
    assert not any(canary in answer.text or canary in str(answer.headers) for answer in answers)


# ---- CORS -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [ORIGIN, "http://127.0.0.1:3000", "https://localhost"])
async def test_cors_of_a_preflight(gateway, path, origin):
    asked = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,last-event-id",
    }
    answer = await gateway.options(path, headers={"Origin": origin, **asked})

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert allowed >= ALLOWED
    assert "access-control-allow-credentials" not in answer.headers


async def test_cors_on_every_answer(gateway, path, auth, api):
    run_id, last_seq = await api.finished_run()
    finished = f"/v1/runs/{run_id}/stream"
    requests = {
        200: ("GET", finished, auth),
        204: ("GET", f"{finished}?after_seq={last_seq}", auth),
        400: ("GET", f"{path}?after_seq=x", auth),
        401: ("GET", path, {}),
        404: ("GET", f"/v1/runs/{uuid4()}/stream", auth),
        405: ("POST", path, auth),
        406: ("GET", path, {**auth, "Accept": "image/png"}),
    }
    for status, (method, address, headers) in requests.items():
        answer = await gateway.request(method, address, headers={**headers, "Origin": ORIGIN})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert exposed == {"Location", "Idempotency-Replayed", "Retry-After"}


async def test_cors_on_every_answer_of_the_api(stack, key, make_key, pool):
    seed = Seed(pool)
    limited = await seed.key(tenant="cors")
    await seed.limit(limited, "cors", requests_per_minute=1)
    reader, at_limit = await make_key(scopes=("read",)), {"Authorization": f"Bearer {limited.text}"}
    auth, reading = {"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {reader}"}
    requests = [
        (201, "POST", "/v1/runs", auth), (204, "GET", "/v1/threads/none/active-run", auth), (400, "GET", "/v1/runs?nope=1", auth),
        (401, "GET", "/v1/runs", {}), (401, "POST", "/v1/runs", {"X-Api-Key": "jn_nobody"}), (403, "POST", "/v1/runs", reading),
        (404, "GET", f"/v1/runs/{uuid4()}", auth), (404, "GET", "/nowhere", auth), (405, "PUT", "/v1/runs", auth),
        (406, "GET", "/v1/runs", {**auth, "Accept": "image/png"}), (415, "POST", "/v1/runs", {**auth, "Content-Type": "text/plain"}),
        (422, "GET", "/v1/runs?limit=0", auth), (429, "GET", "/v1/runs", at_limit),
    ]  # fmt: skip
    async with httpx.AsyncClient(base_url=stack.api.url, timeout=30, verify=False, trust_env=False) as client:
        assert (await client.get("/v1/runs", headers=at_limit)).status_code == 200, (
            "the one that is let through"
        )
        for status, method, path, headers in requests:
            content = b'{"agent":"a"}' if method == "POST" else None
            sent = {"Content-Type": "application/json", **headers, "Origin": ORIGIN}
            answer = await client.request(method, path, headers=sent, content=content)
            if status >= 400:
                _problem(answer, status)
            assert answer.status_code == status, (method, path, answer.text)
            assert answer.headers["access-control-allow-origin"] == ORIGIN, status
            exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
            assert exposed == {"Location", "Idempotency-Replayed", "Retry-After"}
            stranger = await client.request(method, path, headers={**sent, "Origin": "null"}, content=content)
            assert "access-control-allow-origin" not in stranger.headers, status


@pytest.mark.parametrize("origin", ["https://example.com", "http://localhost.example.com", "null"])
async def test_cors_is_not_for_strangers(gateway, path, origin):
    answer = await gateway.get(path, headers={"Origin": origin})

    assert answer.status_code == 401
    assert "access-control-allow-origin" not in answer.headers
