"""What the counters came to when they were last accepted, and what has become worse since.

Every counter is one of which less is better, and `tolerance` is how much more of it passes, in its own unit: what two runs of the
same code differ by, and some more.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = Path(__file__).parent / "baseline.json"
FIRST_TOLERANCE = 0.05
"""Of a new counter's value. Then it is for people to set, and stays."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted now."""

    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was counted then, and how much more is let pass."""

    value: float
    unit: str
    tolerance: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One counter, then and now; either may be missing."""

    name: str
    accepted: Accepted | None
    counted: Counted | None

    @property
    def worse(self) -> bool:
        """Beyond its tolerance; likewise what nobody has accepted yet, and what is not counted any more."""
        if self.accepted is None or self.counted is None:
            return True
        return self.counted.value > self.accepted.value + self.accepted.tolerance

    @property
    def better(self) -> bool:
        """By more than its tolerance, so that a way back would pass unseen."""
        if self.accepted is None or self.counted is None:
            return False
        return self.counted.value < self.accepted.value - self.accepted.tolerance


def compared(accepted: Mapping[str, Accepted], counted: Mapping[str, Counted]) -> Sequence[Verdict]:
    """A verdict for each counter that is in either, by name."""
    names = sorted(accepted.keys() | counted.keys())
    return [Verdict(name, accepted.get(name), counted.get(name)) for name in names]


def renewed(accepted: Mapping[str, Accepted], counted: Mapping[str, Counted]) -> dict[str, Accepted]:
    """What is accepted from now on: the values of now; tolerances stay."""
    return {
        name: Accepted(
            one.value,
            one.unit,
            accepted[name].tolerance if name in accepted else FIRST_TOLERANCE * abs(one.value),
        )
        for name, one in sorted(counted.items())
    }


def table(verdicts: Sequence[Verdict]) -> str:
    """A line for each."""
    header = f"{'':38} {'accepted':>12} {'counted':>12} {'tolerance':>10}"
    return "\n".join([header, *map(_line, verdicts)])


def _line(verdict: Verdict) -> str:
    accepted, counted = verdict.accepted, verdict.counted
    then = f"{accepted.value:12.5g}" if accepted else f"{'new':>12}"
    now = f"{counted.value:12.5g}" if counted else f"{'gone':>12}"
    tolerance = f"{accepted.tolerance:10.3g}" if accepted else " " * 10
    unit = (counted or accepted or Counted(0, "")).unit
    word = "WORSE" if verdict.worse else "better" if verdict.better else ""
    return f"{verdict.name:38} {then} {now} {tolerance}  {word:6} {unit}"


def read() -> dict[str, Accepted]:
    """From the file; nothing where there is none."""
    if not FILE.exists():
        return {}
    return {name: Accepted(**fields) for name, fields in json.loads(FILE.read_text()).items()}


def write(accepted: Mapping[str, Accepted]) -> None:
    """One line for each counter, so that a change of one is a change of one line."""
    FILE.write_text("{\n" + ",\n".join(_json_lines(accepted)) + "\n}\n")


def _json_lines(accepted: Mapping[str, Accepted]) -> Iterator[str]:
    for name, one in accepted.items():
        rounded = {
            field: float(f"{value:.5g}") if isinstance(value, float) else value
            for field, value in asdict(one).items()
        }
        yield f"  {json.dumps(name)}: {json.dumps(rounded)}"
