"""Rounds in which several ways to do the same are measured by turns, so that what else the machine does falls on all alike.

A figure of one way alone says little on a shared machine; a ratio of two, taken round by round, says what it cost. A way
that stands there twice (`again`) shows how far two figures of the same thing are apart: the noise.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """What one way did in one round. `cpu`: seconds by part. `latencies`: seconds."""

    units: int
    seconds: float
    cpu: Mapping[str, float]
    latencies: Sequence[float] = ()
    counters: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Side:
    """One way. `turn` does its part of a round."""

    name: str
    turn: Callable[[], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Measured:
    """All samples of all ways, by name, in the order of the rounds. `facts`: what was seen once, with its unit in the name.
    `missing`: which ways could not be had here, or what is not as it should be, and why.
    """

    unit: str
    samples: Mapping[str, Sequence[Sample]]
    facts: Mapping[str, float] = field(default_factory=dict[str, float])
    missing: Sequence[str] = ()

    def micros(self, side: str, parts: Sequence[str] = ()) -> list[float]:
        """µs of CPU a unit, by round; of some parts, or of all."""
        return [
            sum(seconds for part, seconds in sample.cpu.items() if not parts or part in parts)
            / sample.units * 1e6
            for sample in self.samples[side]
        ]  # fmt: skip

    def ratio(self, side: str, other: str) -> tuple[float, float, float]:
        """What a unit costs here against there: median, least and greatest of the rounds."""
        pairs = zip(self.micros(side), self.micros(other), strict=True)
        ratios = [here / there for here, there in pairs]
        return median(ratios), min(ratios), max(ratios)

    def latency(self, side: str, share: float) -> float:
        """Seconds that `share` of all latencies of this way do not exceed; NaN without any."""
        return quantile([t for sample in self.samples[side] for t in sample.latencies], share)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


async def by_turns(unit: str, sides: Sequence[Side], rounds: int, told: Callable[[str], None]) -> Measured:
    """Each way once a round, another one first in every round. A round before the first is thrown away."""
    samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
    for number in range(-1, rounds):
        for place in range(len(sides)):
            side = sides[(number + place) % len(sides)]
            sample = await side.turn()
            if number >= 0:
                samples[side.name].append(sample)
                told(f"{number + 1}/{rounds} {side.name}: {_line(sample)}")
    return Measured(unit, samples)


def _line(sample: Sample) -> str:
    cpu = "  ".join(f"{part} {seconds / sample.units * 1e6:.1f} µs" for part, seconds in sample.cpu.items())
    return f"{sample.units} in {sample.seconds:.1f} s  {cpu}"
