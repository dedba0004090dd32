"""The OpenAPI document says all of it, and the one that is checked in is this one."""

import json
from pathlib import Path

from juinie_api.edges.http import document

CHECKED_IN = Path(__file__).parents[4] / "docs" / "reference" / "openapi.json"

ROUTES = {
    ("post", "/v1/runs"), ("get", "/v1/runs"), ("get", "/v1/runs/{run_id}"), ("delete", "/v1/runs/{run_id}"),
    ("get", "/v1/threads/{thread_id}/active-run"), ("post", "/v1/runs/{run_id}/events"),
    ("get", "/v1/runs/{run_id}/events"), ("post", "/v1/runs/{run_id}/finish"), ("post", "/v1/runs/{run_id}/cancel"),
    ("post", "/v1/claims"), ("post", "/v1/runs/{run_id}/heartbeat"), ("get", "/v1/runs/{run_id}/wait"), ("post", "/v1/runs/{run_id}/stream-tokens"),
    ("get", "/v1/admin/outbox"), ("post", "/v1/admin/outbox/pause"), ("post", "/v1/admin/outbox/resume"),
    ("get", "/v1/admin/outbox/dead-letters"), ("post", "/v1/admin/outbox/dead-letters/{id}/requeue"),
    ("post", "/v1/admin/outbox/dead-letters/{id}/discard"), ("post", "/v1/admin/runs/{run_id}/republish"),
    ("post", "/v1/admin/republish"),
}  # fmt: skip


def test_the_checked_in_document_is_this_one():
    assert json.loads(CHECKED_IN.read_text()) == document(), "make docs"


def test_every_route_is_there_with_its_refusals_and_its_key():
    operations = {
        (method, path): operation
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == ROUTES
    for (_, path), operation in operations.items():
        assert {"400", "401", "403", "429", "503"} <= operation["responses"].keys()
        assert operation["security"] == [{"apiKey": []}, {"apiKeyHeader": []}]
        assert ("404" in operation["responses"]) == ("{run_id}" in path or "{id}" in path)


def test_every_reference_leads_somewhere():
    text = json.dumps(document())
    schemas = document()["components"]["schemas"]
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas


def test_a_value_by_default_is_one_that_a_client_may_send():
    """Texts of JSON are kept as text, which no client sends."""
    schemas = document()["components"]["schemas"]
    for name, field, value in (
        ("EventBody", "data", None),
        ("CreateBody", "input", None),
        ("CreateBody", "metadata", {}),
        ("FinishBody", "output", None),
        ("FinishBody", "error", None),
    ):
        assert schemas[name]["properties"][field]["default"] == value


def test_two_builds_are_the_same_to_the_byte():
    assert json.dumps(document()) == json.dumps(document())
