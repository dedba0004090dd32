"""Every name that the publisher speaks is on the reference page."""

import re
from pathlib import Path

from juinie_publisher import telemetry

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/reference/telemetry.md").read_text()


def publishers_part():
    return re.split(r"^## ", PAGE.partition("## publisher")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_page_names_every_metric_log_event_and_span(told):
    source = Path(telemetry.__file__).read_text()
    metrics = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in told.registry.collect()
    }
    events = set(re.findall(r'_log\.\w+\(\s*"(\w+)"', source)) | {
        "kafka_back",
        "relay_resumed",
        "outbox_listening",
        "outbox_polling",
    }
    named = set(re.findall(r"^\| `([^`]+)`", publishers_part(), re.MULTILINE))
    assert named == metrics | events | {telemetry.PUBLISH_SPAN, telemetry.SWEEP_SPAN}
