"""What was kept becomes pictures: of each path and load the newest line, beside its floor, with what the rounds were apart."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def shown(bench_module: Callable[[str], ModuleType], tmp_path: Path):
    plot = bench_module("plot")

    def show(*lines: str) -> dict[str, ET.Element]:
        kept = tmp_path / "kept.jsonl"
        kept.write_text("\n".join(lines))
        return {name: ET.fromstring(picture) for name, picture in plot.pictures(kept).items()}

    return show


def line(
    path: str,
    micros: Mapping[str, list[dict[str, float]]],
    *,
    case: str | None = None,
    latency: Mapping[str, float | None] | None = None,
    **arguments: Any,
) -> str:
    """As `--json` keeps it. `micros`: of each way, by round and part."""
    given = {"path": path, "events": 1, "runs": 1, "watchers": 1000, "rate": 20000.0, "processes": 1}
    rounds = {
        side: [{"units": 1000, "cpu": {part: value / 1000 for part, value in cpu.items()}} for cpu in samples]
        for side, samples in micros.items()
    }
    quantiles = latency or dict.fromkeys(("p50", "p99", "max"))
    kept = {
        "measured_at": "2026-11-26T12:00:00+00:00",
        "commit": "abc1234",
        "machine": {"cores": 2},
        "arguments": given | arguments,
        "unit": "event",
        "case": case,
        "rounds": rounds,
        "latency": dict.fromkeys(micros, quantiles),
    }
    return json.dumps(kept)


def texts(picture: ET.Element) -> list[str]:
    return [text.text or "" for text in picture.iter(f"{SVG}text")]


def widths(picture: ET.Element) -> Iterator[float]:
    """Of the lines that lie: what the rounds were apart."""
    for drawn in picture.iter(f"{SVG}line"):
        if drawn.attrib["y1"] == drawn.attrib["y2"]:
            yield float(drawn.attrib["x2"]) - float(drawn.attrib["x1"])


def test_the_newest_line_of_a_path_is_shown_beside_its_floor(shown):
    old = line("append", {"juinie": [{"service": 500, "postgres": 10}], "floor": [{"service": 10}]})
    new = line("append", {"juinie": [{"service": 280, "postgres": 10}], "floor": [{"service": 10}]})
    (picture,) = shown(old, new).values()
    said = texts(picture)
    assert "append, 1 in each append: µs of CPU, by event" in said
    assert "290 (service 280, postgres 10), 29 times the floor" in said
    assert not any("510" in text for text in said)
    assert any(text.startswith("Measured 2026-11-26, 2 cores (abc1234).") for text in said)


def test_what_the_rounds_were_apart_is_drawn(shown):
    steady = [{"service": 100.0}] * 3
    apart = [{"service": 50.0}, {"service": 100.0}, {"service": 200.0}]
    (picture,) = shown(line("relay", {"juinie": apart, "again": steady})).values()
    (width,) = widths(picture)
    bars = [float(bar.attrib["width"]) for bar in picture.iter(f"{SVG}rect") if len(bar)]
    assert width == pytest.approx(1.5 * bars[0], abs=0.2)


def test_each_kind_of_path_has_a_picture_and_only_what_was_kept_is_made(shown):
    cpu = {"juinie": [{"service": 5.0}]}
    times = {"p50": 0.005, "p99": 0.02, "max": 0.08}
    pictures = shown(
        line("fan-out", cpu, runs=1000, watchers=1, latency=times),
        line("latency", cpu, case="paces", latency=times),
        line("growth", cpu, case="stored"),
        line("storm", cpu, case="reads", watchers=10_000),
        line("storm", cpu, case="reads", watchers=500),
    )
    assert set(pictures) == {"hot-paths", "latency", "performance"}
    title = "fan-out, one watcher of each of 1,000 runs, 20,000 deliveries a second"
    assert f"{title}: µs of CPU, by event" in texts(pictures["hot-paths"])
    assert f"{title}: from Kafka to its watcher" in texts(pictures["latency"])
    assert "latency, paces: from an append to its watcher" in texts(pictures["latency"])
    assert texts(pictures["latency"]).count("p50 5, p99 20, max 80 ms") == 2
    storms = [text for text in texts(pictures["performance"]) if text.startswith("storm, reads")]
    assert storms == [
        f"storm, reads, {watchers} watchers: µs of CPU, by event" for watchers in ("10,000", "500")
    ]


def test_a_way_without_latencies_is_left_out_of_their_picture(shown):
    times = {"p50": 0.005, "p99": 0.02, "max": 0.08}
    both = json.loads(
        line("fan-out", {"juinie": [{"service": 5.0}], "floor": [{"service": 4.0}]}, latency=times)
    )
    both["latency"]["floor"] = dict.fromkeys(times)
    assert "floor" not in texts(shown(json.dumps(both))["latency"])
