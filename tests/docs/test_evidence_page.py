"""Every test that the evidence page names exists, and every row of the list of faults has its line."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/operations/evidence.md"
NAMED = re.compile(r"`([\w./-]+\.py)?::(test_\w+)`")
ROWS = {"P": 8, "D": 10, "K": 9, "N": 6, "T": 1, "R": 4, "E": 7, "H": 16}


def named_tests() -> list[tuple[str, str]]:
    """File and name of each. One without a file is in the file that was named before it, in the same table row."""
    found = list[tuple[str, str]]()
    for line in PAGE.read_text().splitlines():
        path = ""
        for match in NAMED.finditer(line):
            path = match[1] or path
            found.append((path, match[2]))
    return found


def functions_in(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions)}


def test_every_test_that_is_named_exists() -> None:
    named = named_tests()
    missing = [f"{path}::{name}" for path, name in named if name not in functions_in(ROOT / path)]

    assert len(named) > 100
    assert missing == []


def test_every_fault_has_its_line() -> None:
    listed = re.findall(r"^\| ([PDKNTREH]\d+) \|", PAGE.read_text(), re.MULTILINE)

    assert sorted(listed) == sorted(
        f"{letter}{number}" for letter, count in ROWS.items() for number in range(1, count + 1)
    )
