"""What was kept becomes a picture: the newest line of each path, with what each way costs."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET


def line(micros: float) -> str:
    sample = {"units": 1000, "cpu": {"service": micros / 1000, "postgres": 0.01}}
    arguments = {"path": "append", "events": 1, "runs": 1, "watchers": 1000}
    return json.dumps({"arguments": arguments, "unit": "event", "case": None, "rounds": {"juinie": [sample]}})


def test_the_newest_line_of_a_path_is_shown(bench_module: Callable[[str], ModuleType], tmp_path: Path):
    kept = tmp_path / "kept.jsonl"
    kept.write_text(f"{line(500)}\n{line(280)}\n")
    texts = [text.text for text in ET.fromstring(bench_module("plot").picture(kept)).iter() if text.text]
    shown = [text for text in texts if text.strip()]
    assert shown[:2] == ["append, 1 in each append: µs of CPU, by event", "juinie"]
    assert shown[-1] == "290 (service 280, postgres 10)"
