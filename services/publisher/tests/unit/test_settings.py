"""What the publisher refuses to start with."""

import pytest

from juinie_publisher.settings import Settings
from juinie_shared.domain.errors import Misconfigured
from juinie_shared.runtime.settings import read_settings


@pytest.mark.parametrize(
    "names",
    [
        {"JUINIE_KAFKA_TOPIC": "events", "JUINIE_KAFKA_DEAD_LETTER_TOPIC": "events"},
        {"JUINIE_KAFKA_TOPIC": "juinie.run-events.dead"},
    ],
    ids=["both-set", "default-of-the-other"],
)
def test_dead_letters_in_the_topic_of_all_run_events_are_refused(monkeypatch, names):
    needed = {"DATABASE_URL": "postgresql://db/juinie", "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}
    for name, value in (needed | names).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured) as refused:
        read_settings(Settings)
    assert refused.value.message == (
        "Settings are missing or wrong: JUINIE_KAFKA_DEAD_LETTER_TOPIC: "
        "Is the topic of all run events, too: name another one"
    )
