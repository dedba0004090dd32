"""The README's five minutes, and the worker's by hand, pasted as they are into one bash, print what the page says they print.

On the tests' own stack, or on the one whose addresses and key are in the file that `JUINIE_WALK_ENV` names.
"""

import asyncio
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ("README.md", "Five minutes")
BY_HAND = ("docs/how-to/run-workers.md", "By hand")
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEXT_BLOCK = "-- next block --"


def walk(page: str, heading: str) -> list[tuple[str, str]]:
    """The blocks of the walk in order, each with what the page says it prints ("" where it says nothing)."""
    section = (ROOT / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = [*BLOCK.findall(section), ("sh", "")]
    return [
        (text, after if kind == "text" else "")
        for (shell, text), (kind, after) in pairwise(blocks)
        if shell == "sh"
    ]


def as_pattern(printed: str) -> str:
    """What the README prints, where `…` stands for what differs each time."""
    return re.escape(printed.strip()).replace("…", "[^\n]+?")


@pytest.fixture
def env_file(request: pytest.FixtureRequest) -> str:
    """What `.juinie/env` holds."""
    if given := os.environ.get("JUINIE_WALK_ENV"):
        return Path(given).read_text()
    environment = request.getfixturevalue("juinie").environment
    return "".join(f"{name}={value}\n" for name, value in environment.items())


@pytest.mark.parametrize("where", [README, BY_HAND], ids=lambda where: where[1])
async def test_the_walk_prints_what_the_page_says(
    env_file: str, tmp_path: Path, where: tuple[str, str]
) -> None:
    blocks = walk(*where)
    (tmp_path / ".juinie").mkdir()
    (tmp_path / ".juinie/env").write_text(env_file)
    script = "".join(f"{block}echo; echo '{NEXT_BLOCK}'\n" for block, _ in blocks)

    bash = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, faults = await bash.communicate()

    printed = out.decode().split(NEXT_BLOCK)[:-1]
    assert len(printed) == len(blocks), (out.decode(), faults.decode())
    for (block, told), given in zip(blocks, printed, strict=True):
        assert re.fullmatch(as_pattern(told), given.strip()), (
            f"{block}\nprints\n{given}\nnot\n{told}\n{faults.decode()}"
        )


def test_the_walk_is_read_whole() -> None:
    blocks = walk(*README)

    assert len(walk(*BY_HAND)) == 6
    assert len(blocks) == 11
    assert all(told for block, told in blocks[2:])
