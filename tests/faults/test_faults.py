"""The fault suite itself, for some seconds: it starts, breaks, checks, keeps its figures, is stopped and goes on, and leaves nothing running."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

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
