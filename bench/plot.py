"""Pictures of what was kept, each for some of the paths; of each path and case the line that was kept last.

python bench plot .juinie/bench/results.jsonl --into docs/explanation
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from drawing import Bar, Drawing, Span, figure

type Kept = Mapping[str, Any]
type Drawn = Callable[[Drawing, Mapping[str, Kept]], None]

FLOOR = "floor"
_TOLD_PARTS = 2
"""Of so many parts the figures are said; more are left to the colours."""


def pictures(file: Path) -> dict[str, str]:
    """SVGs by name. One of which nothing was kept is left out."""
    newest: dict[str, Kept] = {}
    for line in file.read_bytes().splitlines():
        kept = orjson.loads(line)
        title = _title(kept)
        newest.pop(title, None)
        newest[title] = kept
    drawn = dict[str, str]()
    for name, (draw, paths, lines) in PICTURES.items():
        chosen = {title: kept for title, kept in newest.items() if kept["arguments"]["path"] in paths}
        if chosen:
            drawing = Drawing()
            draw(drawing, chosen)
            drawn[name] = drawing.svg(f"{_measured(list(chosen.values()))}. {lines}")
    return drawn


def _title(kept: Kept) -> str:
    """What was measured, and under which load: two lines of one title measure the same."""
    given, name = kept["arguments"], kept["case"]
    path = given["path"]
    match name or path:
        case "append" | "relay":
            load = f"{given['events']} in each append"
        case "fan-out":
            load = _fan_out(given)
        case "reconnects" | "reads" | "crowds":
            load = f"{given['watchers']:,} watchers"
        case _:
            load = ""
    return ", ".join(word for word in (path, name, load) if word)


def _fan_out(given: Kept) -> str:
    watchers = "one watcher" if given["watchers"] == 1 else f"{given['watchers']:,} watchers"
    runs = "one run" if given["runs"] == 1 else f"each of {given['runs']:,} runs"
    shared = "" if given["processes"] == 1 else f", {given['processes']} processes"
    return f"{watchers} of {runs}, {given['rate']:,.0f} deliveries a second{shared}"


def _measured(lines: Sequence[Kept]) -> str:
    """When, of which commits, on what."""
    days = sorted({line["measured_at"][:10] for line in lines})
    commits = ", ".join(dict.fromkeys(line["commit"] for line in lines))
    cores = ", ".join(sorted({f"{line['machine']['cores']} cores" for line in lines}))
    return f"Measured {' to '.join(dict.fromkeys((days[0], days[-1])))}, {cores} ({commits})"


# ---- CPU ---------------------------------------------------------------------------------------------------------------


def _bars(drawing: Drawing, lines: Mapping[str, Kept]) -> None:
    for title, kept in lines.items():
        rounds = kept["rounds"]
        floor = median(_totals(rounds[FLOOR])) if FLOOR in rounds else None
        drawing.bars(
            f"{title}: µs of CPU, by {kept['unit']}",
            [_bar(side, samples, rounds.get(FLOOR)) for side, samples in rounds.items()],
            floor,
        )


def _bar(side: str, samples: Sequence[Kept], floor: Sequence[Kept] | None) -> Bar:
    """Parts in the median of the rounds. In proportion to the floor: the median of the rounds' ratios."""
    parts = {
        part: median(sample["cpu"][part] / sample["units"] * 1e6 for sample in samples)
        for part in samples[0]["cpu"]
    }
    totals = _totals(samples)
    said = figure(median(totals))
    if 1 < len(parts) <= _TOLD_PARTS:
        said += f" ({', '.join(f'{part} {figure(value)}' for part, value in parts.items())})"
    if side == FLOOR:
        parts = {FLOOR: sum(parts.values())}
    elif floor:
        ratio = median(here / there for here, there in zip(totals, _totals(floor), strict=True))
        said += f", {figure(ratio)} times the floor"
    return Bar(side, parts, min(totals), max(totals), said)


def _totals(samples: Sequence[Kept]) -> list[float]:
    """µs a unit, by round."""
    return [sum(sample["cpu"].values()) / sample["units"] * 1e6 for sample in samples]


# ---- latencies ---------------------------------------------------------------------------------------------------------


def _spans(drawing: Drawing, lines: Mapping[str, Kept]) -> None:
    """From when its append was due, or where there was none, from when it was handed to Kafka, until an event was read by its watcher."""
    starts = {"latency": "an append", "fan-out": "Kafka"}
    drawing.spans(
        {
            f"{title}: from {starts[kept['arguments']['path']]} to its watcher": _spans_of(kept)
            for title, kept in lines.items()
        }
    )


def _spans_of(kept: Kept) -> list[Span]:
    """Of the ways that have latencies."""
    return [
        Span(side, *(seconds[name] * 1e3 for name in ("p50", "p99", "max")))
        for side, seconds in kept["latency"].items()
        if seconds["p50"] is not None
    ]


_ROUNDS = "Medians of the rounds; a line ends at the least and the most of them, a dashed one is the floor."
_QUANTILES = "A dot is p50, the thick line ends at p99, the thin one at the greatest."
PICTURES: Mapping[str, tuple[Drawn, set[str], str]] = {
    "hot-paths": (_bars, {"append", "relay", "fan-out", "overhead"}, _ROUNDS),
    "latency": (_spans, {"latency", "fan-out"}, _QUANTILES),
    "performance": (_bars, {"growth", "storm"}, _ROUNDS),
    "peers": (_bars, {"peers"}, _ROUNDS),
}
"""How a picture is drawn, of which paths, and what its lines are."""
