"""How soon all should be well again, and what took longer."""

from collections.abc import Iterator, Mapping
from typing import Any

import kafka_faults
import postgres_faults
import service_faults

from juinie.torture.summary import Summary
from juinie.torture.waited import NOT_LOOKED_AT

WELL_AGAIN_SECONDS = {service_faults.AREA: 5.0, postgres_faults.AREA: 10.0, kafka_faults.AREA: 10.0}
"""From the end of a fault, by what was broken; Kafka is read again by then, too."""
AWAY_DELAY_SECONDS = 2.0
"""How late an event may be while Kafka alone is away."""
SLACK = 6.0
"""So many times as long is let pass on a machine that has other work, where nobody says more: a run that measures says 1."""


def exceeded(found: Summary, slack: float) -> list[str]:
    """What took longer than `slack` times the goal, a line each. Two faults at once, and lines that are cut, have no goal."""
    return [line for episode in found["episodes"] for line in _beyond(episode, slack)]


def _beyond(episode: Mapping[str, Any], slack: float) -> Iterator[str]:
    if len(episode["areas"]) != 1:
        return
    (name,), (area,) = episode["names"], episode["areas"]
    goal = WELL_AGAIN_SECONDS.get(area)
    if goal is None:
        return
    waits = {"well again": episode["recovery_seconds"]}
    if area == kafka_faults.AREA:
        waits["live again"] = episode.get("live_seconds", NOT_LOOKED_AT)
    goals = {what: (seconds, goal) for what, seconds in waits.items() if seconds not in (None, NOT_LOOKED_AT)}
    if name == kafka_faults.AWAY:
        goals["the latest event"] = (episode["longest_delay_seconds"], AWAY_DELAY_SECONDS)
    for what, (seconds, most) in goals.items():
        if seconds > slack * most:
            yield f"{name}: {what} after {seconds:.1f} s; the goal is {most:g} s"
