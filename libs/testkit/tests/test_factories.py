"""Made-up bodies are right in shape, and the same again for the same seed."""

import json

from juinie_shared.domain.events import RESERVED_PREFIX, is_event_type
from juinie_testkit.factories import (
    EVENT_TYPES,
    NASTY_JSON,
    CreateBodyFactory,
    EventBodyFactory,
    nasty_append,
)


def test_creates_are_right_and_take_what_is_given():
    CreateBodyFactory.seed_random(1)
    bodies = [CreateBodyFactory.build(agent="mine") for _ in range(20)]
    assert {body["agent"] for body in bodies} == {"mine"}
    assert all(json.loads(json.dumps(body)) == body for body in bodies)
    assert all(60 <= body.get("timeout_seconds", 60) < 3600 for body in bodies)


def test_event_types_are_a_clients_to_choose():
    assert all(is_event_type(name) and not name.startswith(RESERVED_PREFIX) for name in EVENT_TYPES)
    assert EventBodyFactory.build()["type"] in EVENT_TYPES


def test_nasty_json_is_json_nevertheless():
    for text in NASTY_JSON:
        json.loads(text)


def test_nasty_append_holds_its_data_to_the_letter():
    body, data = nasty_append(7, count=30)
    assert nasty_append(7, count=30) == (body, data)
    assert len(json.loads(body)["events"]) == 30
    assert all(text.encode() in body for text in data)
