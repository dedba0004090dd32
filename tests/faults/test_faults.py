"""The fault suite itself, for some seconds: it starts, breaks, checks, keeps its figures, and leaves nothing running."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

SUITE = Path(__file__).parent

pytestmark = pytest.mark.timeout(600)


async def suite(*arguments: str | Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, SUITE, *map(str, arguments), stdout=PIPE, stderr=STDOUT
    )
    async with asyncio.timeout(500):
        printed, _ = await process.communicate()
    return process.returncode, printed.decode()


async def test_some_seconds_of_faults_find_nothing_and_are_kept(tmp_path: Path):
    history = tmp_path / "history.jsonl"
    code, printed = await suite(
        "run",
        "--seconds",
        "15",
        "--seed",
        "7",
        "--rate",
        "200",
        "--runs",
        "4",
        "--only",
        "cut",
        "--history",
        history,
    )

    assert code == 0, printed
    kept = json.loads(history.read_text())
    assert kept["violations"] == kept["wrong_answers"] == {}
    assert kept["events"] > 0
    assert kept["episodes"]
    assert all(kept["watchers"].get(sort) for sort in ("whole", "types", "tail", "token"))
    assert kept["deleted"] > 0
    code, printed = await suite("report", "--history", history)
    assert code == 0
    assert "| seeds | 7 |" in printed
    assert "| violations: lost | 0 |" in printed
