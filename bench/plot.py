"""A picture of what was kept: the CPU of each way, by part, as bars of its path's own scale.

python bench plot .juinie/bench/results.jsonl > docs/explanation/performance.svg
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import orjson

_WIDTH, _LABEL, _BAR, _ROW, _GAP = 880, 190, 440, 18, 34
_COLOURS = ("#3b6ea5", "#d9913d", "#6a9f58", "#a06a9f")
_PARTS = {"service": 0, "gateway": 0, "postgres": 1}


def picture(file: Path) -> str:
    """SVG. Of each path and case the line that was kept last."""
    paths: dict[str, Mapping[str, Any]] = {}
    for line in file.read_bytes().splitlines():
        kept = orjson.loads(line)
        title = _title(kept)
        paths.pop(title, None)
        paths[title] = kept
    parts, height = list[str](), 12
    for title, kept in paths.items():
        parts += _path(title, kept, height)
        height += _GAP + _ROW * len(kept["rounds"])
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _title(kept: Mapping[str, Any]) -> str:
    given = kept["arguments"]
    loads = {"fan-out": f"{given['watchers']:,} watchers of each of {given['runs']:,} runs"}
    load = kept.get("case") or loads.get(given["path"], f"{given['events']} in each append")
    return f"{given['path']}, {load}: µs of CPU, by {kept['unit']}"


def _path(title: str, kept: Mapping[str, Any], top: int) -> Iterator[str]:
    """A title, and a bar for each way."""
    yield f'<text x="8" y="{top + 12}" font-weight="bold">{escape(title)}</text>'
    micros = {side: _micros(samples) for side, samples in kept["rounds"].items()}
    most = max(sum(parts.values()) for parts in micros.values()) or 1.0
    for place, (side, parts) in enumerate(micros.items()):
        y = top + 20 + place * _ROW
        yield f'<text x="{_LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(side)}</text>'
        x = float(_LABEL)
        for part, value in parts.items():
            width = value / most * _BAR
            colour = _COLOURS[_PARTS.get(part, 2)]
            yield (
                f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 5}" fill="{colour}">'
                f"<title>{escape(part)}: {value:.1f} µs</title></rect>"
            )
            x += width
        yield f'<text x="{x + 6:.1f}" y="{y + 12}">{escape(_label(parts))}</text>'


def _micros(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By part, in the median of the rounds."""
    return {
        part: median(sample["cpu"][part] / sample["units"] * 1e6 for sample in samples)
        for part in samples[0]["cpu"]
    }


def _label(parts: Mapping[str, float]) -> str:
    total = f"{sum(parts.values()):.3g}"
    return (
        total
        if len(parts) == 1
        else f"{total} ({', '.join(f'{part} {value:.3g}' for part, value in parts.items())})"
    )
