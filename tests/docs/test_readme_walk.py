"""The README's five minutes, pasted as they are into one bash, print what the README says they print."""

import asyncio
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

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


async def test_the_walk_prints_what_the_readme_says(juinie: Any, tmp_path: Path) -> None:
    blocks = walk()
    (tmp_path / ".juinie").mkdir()
    lines = [f"{name}={value}\n" for name, value in juinie.environment.items()]
    (tmp_path / ".juinie/env").write_text("".join(lines))
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
