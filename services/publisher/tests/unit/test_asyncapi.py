"""The AsyncAPI document says what a consumer may rely on, and the checked-in one is the one that the code writes."""

import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID

from juinie_publisher.edges.application import asyncapi_document
from juinie_shared.contracts.dead_letter import DeadLetterRecord
from juinie_shared.domain.ids import RunId, new_run_id

ROOT = Path(__file__).parents[4]


def test_checked_in_document_is_what_the_code_writes():
    assert (ROOT / "docs/reference/asyncapi.json").read_text() == asyncapi_document(), "run: make docs"


def test_command_prints_the_document():
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-m", "juinie_publisher", "asyncapi"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (printed.stdout, printed.stderr) == (asyncapi_document(), "")


def test_headers_of_the_document_are_those_of_a_record(record_maker):
    document = json.loads(asyncapi_document())
    message = document["components"]["messages"]["run-events:Message"]
    record = record_maker(RunId(UUID(str(new_run_id()))), 1, traceparent="00-1-2-01")
    names = [name for name, _ in record.headers()]
    assert sorted(message["headers"]["properties"]) == sorted(names)
    assert sorted(message["headers"]["required"]) == sorted(set(names) - {"traceparent"})


def test_headers_of_a_dead_letter_are_those_of_its_record(record_maker):
    document = json.loads(asyncapi_document())
    message = document["components"]["messages"]["dead-letters:Message"]
    event = record_maker(RunId(UUID(str(new_run_id()))), 1, traceparent="00-1-2-01")
    names = [name for name, _ in DeadLetterRecord(event, "message_too_large").headers()]
    assert sorted(message["headers"]["properties"]) == sorted(names)
    assert document["channels"]["dead-letters"]["address"] == "juinie.run-events.dead"


def test_document_tells_topic_key_and_delivery():
    document = json.loads(asyncapi_document())
    channel = document["channels"]["run-events"]
    message = document["components"]["messages"]["run-events:Message"]
    assert channel["address"] == "juinie.run-events"
    assert "At least once" in channel["description"]
    assert "In seq order for each key" in channel["description"]
    assert message["bindings"]["kafka"]["key"]["format"] == "uuid"
