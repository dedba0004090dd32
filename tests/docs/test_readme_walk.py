"""The README's five minutes, pasted as they are into one bash, print what the README says they print.

On the tests' own stack, or on the one whose addresses and key are in the file that `JUINIE_WALK_ENV` names.
"""

import asyncio
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEXT_BLOCK = "-- next block --"


def walk() -> list[tuple[str, str]]:
    """The blocks of the walk in order, each with what the README says it prints ("" where it says nothing)."""
    section = README.read_text().split("\n## Five minutes\n")[1].split("\n## ")[0]
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


async def test_the_walk_prints_what_the_readme_says(env_file: str, tmp_path: Path) -> None:
    blocks = walk()
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
    blocks = walk()

    assert len(blocks) == 11
    assert all(told for block, told in blocks[2:])
