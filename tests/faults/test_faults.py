"""The fault suite itself, for some seconds: it starts, breaks, checks, keeps its figures, is stopped and goes on, and leaves nothing running."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path
from typing import Any

import pytest

SUITE = Path(__file__).parent
SMALL = ("--rate", "200", "--runs", "4", "--only", "cut")
TOLD = b"  0 found  "
"""In the line of each episode of faults, as long as nothing was found."""

pytestmark = pytest.mark.timeout(600)


async def begin(*arguments: str | Path) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, SUITE, *map(str, arguments), stdout=PIPE, stderr=STDOUT
    )


async def ended(process: Process) -> tuple[int | None, str]:
    async with asyncio.timeout(500):
        printed, _ = await process.communicate()
    return process.returncode, printed.decode()


async def until_told(process: Process, episodes: int) -> None:
    """Wait until the suite has told of so many episodes."""
    assert process.stdout
    async with asyncio.timeout(300):
        while episodes:
            line = await process.stdout.readline()
            assert line, "it ended"
            episodes -= TOLD in line


async def test_a_run_that_is_stopped_and_another_find_nothing_and_add_up(tmp_path: Path):
    history = tmp_path / "history.jsonl"
    stopped = await begin("run", "--seconds", "3600", "--seed", "7", *SMALL, "--history", history)
    await until_told(stopped, episodes=3)
    stopped.send_signal(signal.SIGINT)
    code, printed = await ended(stopped)
    assert code == 0, printed

    code, printed = await ended(
        await begin("run", "--seconds", "10", "--seed", "8", *SMALL, "--history", history)
    )
    assert code == 0, printed

    first, second = (json.loads(line) for line in history.read_text().splitlines())
    assert first["seconds"] < 3600
    assert len(first["episodes"]) >= 3
    for kept in (first, second):
        assert kept["violations"] == kept["wrong_answers"] == {}
        assert kept["events"] > 0
        assert kept["episodes"]
        assert all(kept["watchers"].get(sort) for sort in ("whole", "types", "tail", "token"))
        assert kept["deleted"] > 0
    code, printed = await ended(await begin("report", "--history", history))
    assert code == 0
    assert "| seeds | 7, 8 |" in printed
    assert f"| events | {first['events'] + second['events']:,} |" in printed
    assert "| violations: lost | 0 |" in printed


async def test_faults_that_do_not_exist_are_no_good_run(tmp_path: Path):
    history = tmp_path / "history.jsonl"
    code, printed = await ended(
        await begin("run", "--seconds", "10", "--only", "kafka killed,api killed", "--history", history)
    )
    assert code == 1, printed
    assert "No fault's name holds 'kafka killed,api killed'." in printed
    assert not history.exists()


async def test_what_takes_longer_than_it_should_is_told(tmp_path: Path):
    def episode(
        name: str, area: str, well: float | None, live: float | str = "not looked at", latest: float = 0.1
    ) -> dict[str, Any]:
        return {
            "names": [name], "areas": [area], "recovery_seconds": well, "live_seconds": live,
            "longest_delay_seconds": latest, "p99_delay_seconds": 0.1,
        }  # fmt: skip

    in_time = [
        episode("api killed", "services", 4.9),
        episode("Postgres killed", "postgres", 9.9),
        episode("Kafka killed", "kafka", 9.9, 9.9),
        episode("kafka away", "kafka", 9.9, 9.9, latest=1.9),
        episode("a line cut", "network", 60),
    ]
    late = [
        episode("api killed", "services", 5.1),
        episode("Postgres killed", "postgres", 10.1),
        episode("Kafka killed", "kafka", 1, 10.1),
        episode("kafka away", "kafka", 1, 1, latest=2.1),
    ]
    assert await told_of(tmp_path, in_time) == []
    assert await told_of(tmp_path, late) == [
        "beyond the goals, seed 7: api killed: well again after 5.1 s; the goal is 5 s",
        "beyond the goals, seed 7: Postgres killed: well again after 10.1 s; the goal is 10 s",
        "beyond the goals, seed 7: Kafka killed: live again after 10.1 s; the goal is 10 s",
        "beyond the goals, seed 7: kafka away: the latest event after 2.1 s; the goal is 2 s",
    ]


async def told_of(directory: Path, episodes: list[dict[str, Any]]) -> list[str]:
    """What the report of a run of these says of the goals."""
    history = directory / "history.jsonl"
    numbers = ("runs", "events", "deliveries", "connections", "appends", "given_up", "unanswered")
    kept: dict[str, Any] = {
        "seed": 7,
        "began_at": "2026-11-27",
        "seconds": 60,
        "violations": {},
        "wrong_answers": {},
    }
    history.write_text(json.dumps(kept | dict.fromkeys(numbers, 1) | {"episodes": episodes}) + "\n")
    code, printed = await ended(await begin("report", "--history", history))
    assert code == 0, printed
    return [line for line in printed.splitlines() if line.startswith("beyond the goals")]
