"""Pictures in SVG: bars of parts that add up, and spans of latencies, in groups under each other.

Ink and paper change together where the reader's colours are dark; without style sheets it is black on white.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABEL, _BAR, _ROW, _HEAD, _GAP = 940, 200, 320, 18, 22, 14
_LEGEND = 34
_TICKS = (1, 2, 5)
PARTS = {
    "api": "#8a63a8",
    "publisher": "#5b9a4c",
    "service": "#3f7ab5",
    "gateway": "#3f7ab5",
    "postgres": "#d9913d",
    "floor": "#8c939b",
}
_OTHER = "#b0615f"
_STYLE = """<style>
.ink { fill: #1f2328 } .quiet { fill: #59636e } .line { stroke: #1f2328 } .grid { stroke: #d1d9e0 } .paper { fill: #ffffff }
@media (prefers-color-scheme: dark) {
.ink { fill: #e6edf3 } .quiet { fill: #9198a1 } .line { stroke: #e6edf3 } .grid { stroke: #3d444d } .paper { fill: #0d1117 }
}
</style>"""


@dataclass(frozen=True, slots=True)
class Bar:
    """What one way takes: its parts, which add up, the least and the most of all rounds, and what is said of it besides."""

    name: str
    parts: Mapping[str, float]
    least: float
    most: float
    said: str = ""

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Span:
    """Latencies of one way, in milliseconds."""

    name: str
    p50: float
    p99: float
    most: float


class Drawing:
    """What is drawn comes below what was drawn before."""

    def __init__(self) -> None:
        self._drawn = list[str]()
        self._parts = dict[str, None]()
        self._below = float(_LEGEND)

    def bars(self, title: str, bars: Sequence[Bar], floor: float | None = None) -> None:
        """All of one scale, which begins at nothing. `floor`: where a line goes through all of them."""
        scale = _BAR / (max(max(bar.total, bar.most) for bar in bars) or 1.0)
        top = self._title(title)
        for bar in bars:
            self._bar(bar, scale)
        if floor is not None:
            self._line(_LABEL + floor * scale, top, _LABEL + floor * scale, self._below, dashed=True)
        self._below += _GAP

    def spans(self, groups: Mapping[str, Sequence[Span]]) -> None:
        """All of one scale, of powers of ten: a thick line from p50 to p99, a thin one on to the greatest."""
        spans = [span for group in groups.values() for span in group]
        ticks = _ticks(min(span.p50 for span in spans), max(span.most for span in spans))
        first, decades = ticks[0], math.log10(ticks[-1] / ticks[0])
        top = self._below - _LEGEND / 2

        def place(value: float) -> float:
            return _LABEL + math.log10(value / first) / decades * _BAR

        self._text(_LABEL - 20, top, "ms", "end", quiet=True)
        for tick in ticks:
            self._text(place(tick), top, f"{tick:g}", "middle", quiet=True)
        behind = len(self._drawn)
        self._below = top + 10
        for title, group in groups.items():
            self._title(title)
            for span in group:
                self._span(span, *map(place, (span.p50, span.p99, span.most)))
            self._below += _GAP
        lines = [_vertical(place(tick), top + 5, self._below - _GAP, "grid") for tick in ticks]
        self._drawn[behind:behind] = lines

    def svg(self, below: str) -> str:
        """`below`: what is said of it all."""
        legend = self._legend()
        self._text(8, self._below + 6, below, quiet=True)
        height = round(self._below + 16)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">'
            f'{_STYLE}<rect class="paper" width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
        )
        return "\n".join([head, *legend, *self._drawn, "</svg>", ""])

    def _title(self, title: str) -> float:
        """Gives where it ends."""
        self._drawn.append(
            f'<text class="ink" x="8" y="{self._below + 13:.1f}" font-weight="bold">{escape(title)}</text>'
        )
        self._below += _HEAD
        return self._below

    def _bar(self, bar: Bar, scale: float) -> None:
        middle, x = self._below + _ROW / 2, float(_LABEL)
        self._text(_LABEL - 8, middle + 4, bar.name, "end")
        for part, value in bar.parts.items():
            self._parts[part] = None
            self._drawn.append(
                f'<rect x="{x:.1f}" y="{middle - 6:.1f}" width="{value * scale:.1f}" height="12" fill="{PARTS.get(part, _OTHER)}">'
                f"<title>{escape(part)}: {value:.1f}</title></rect>"
            )
            x += value * scale
        least, most = _LABEL + bar.least * scale, _LABEL + bar.most * scale
        if most - least > 1:
            self._line(least, middle, most, middle)
            self._line(least, middle - 3, least, middle + 3)
            self._line(most, middle - 3, most, middle + 3)
        self._text(max(x, most) + 8, middle + 4, bar.said)
        self._below += _ROW

    def _span(self, span: Span, p50: float, p99: float, most: float) -> None:
        middle, colour = self._below + _ROW / 2, PARTS["service"]
        self._text(_LABEL - 8, middle + 4, span.name, "end")
        self._line(p50, middle, most, middle)
        self._line(most, middle - 4, most, middle + 4)
        self._drawn += [
            f'<rect x="{p50:.1f}" y="{middle - 3:.1f}" width="{p99 - p50:.1f}" height="6" fill="{colour}"/>',
            f'<circle cx="{p50:.1f}" cy="{middle:.1f}" r="5" fill="{colour}"/>',
        ]
        said = f"p50 {figure(span.p50)}, p99 {figure(span.p99)}, max {figure(span.most)} ms"
        self._text(_LABEL + _BAR + 24, middle + 4, said)
        self._below += _ROW

    def _legend(self) -> list[str]:
        """Which colour is whose; none where there is one only."""
        colours = {PARTS.get(part, _OTHER): part for part in self._parts}
        if len(colours) < 2:
            return []
        legend, x = list[str](), 8.0
        for colour, part in colours.items():
            named = [name for name in self._parts if PARTS.get(name, _OTHER) == colour] or [part]
            text = ", ".join(named)
            legend += [
                f'<rect x="{x:.1f}" y="9" width="12" height="12" fill="{colour}"/>',
                f'<text class="ink" x="{x + 17:.1f}" y="19">{escape(text)}</text>',
            ]
            x += 17 + 7 * len(text) + 18
        return legend

    def _text(self, x: float, y: float, text: str, anchor: str = "start", *, quiet: bool = False) -> None:
        ink = "quiet" if quiet else "ink"
        self._drawn.append(
            f'<text class="{ink}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def _line(self, x: float, y: float, to_x: float, to_y: float, *, dashed: bool = False) -> None:
        dashes = ' stroke-dasharray="3 3"' if dashed else ""
        self._drawn.append(
            f'<line class="line" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="#1f2328"{dashes}/>'
        )


def figure(value: float) -> str:
    """Three digits, or all that are before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _vertical(x: float, top: float, bottom: float, ink: str) -> str:
    return (
        f'<line class="{ink}" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="#d1d9e0"/>'
    )


def _ticks(least: float, most: float) -> list[float]:
    """1, 2, 5, 10, ... from what is not above the least to what is not below the most."""
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    ticks = [tick * 10.0**decade for decade in decades for tick in _TICKS]
    first = max((tick for tick in ticks if tick <= least), default=ticks[0])
    last = min(tick for tick in ticks if tick >= most and tick > first)
    return [tick for tick in ticks if first <= tick <= last]
