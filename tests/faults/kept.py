"""What all runs of the suite found, one line each in a file, so that long runs can be stopped and go on another day."""

import json
from pathlib import Path

from goals import exceeded
from kafka_faults import AWAY

from juinie.torture.summary import Summary, added_up

HISTORY = Path(__file__).parents[2] / ".juinie/faults/history.jsonl"


def keep(found: Summary, history: Path) -> None:
    """Append one run's figures."""
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("a") as file:
        file.write(json.dumps(found) + "\n")


def report(history: Path) -> str:
    """All runs that are kept, added up, as a table for a page."""
    kept = [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []
    if not kept:
        return f"Nothing is kept in {history} yet: make test-faults"
    lines = [*added_up(kept), *_away(kept)]
    return "\n".join(
        [
            "| what | figure |",
            "|---|---|",
            *(f"| {name} | {figure} |" for name, figure in lines),
            *(f"beyond the goals, seed {one['seed']}: {line}" for one in kept for line in exceeded(one, 1)),
        ]
    )


def _away(kept: list[Summary]) -> list[tuple[str, str]]:
    """How late events came while Kafka alone was away."""
    delays = [
        episode["longest_delay_seconds"]
        for one in kept
        for episode in one["episodes"]
        if list(episode["names"]) == [AWAY]
    ]
    return [("Kafka away: the latest event", f"{max(delays):.1f} s, {len(delays)} times")] if delays else []
