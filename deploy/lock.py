"""The one lock, cut to what one member needs.

`requirements.lock` names, under each package, which packages asked for it ("# via"). Following those names from a
member gives its part of the lock with the hashes kept: no resolver, no network.

    python deploy/lock.py juinie-api juinie-testkit > subset.txt
"""

import re
import sys
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"


def entries(text: str) -> dict[str, tuple[str, set[str]]]:
    """Read each package's block and the names that asked for it: {name: (block, askers)}."""
    found: dict[str, tuple[str, set[str]]] = {}
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE):
        if head := re.match(r"([a-z0-9._-]+)==", block):
            askers = re.findall(r"^ +#(?: via)? +([a-z0-9._-]+)", block, flags=re.MULTILINE)
            found[head[1]] = (block, set(askers))
    return found


def member_needs(name: str) -> set[str]:
    """The workspace members that `name` depends on, itself included."""
    root = LOCK.parent
    for pyproject in root.glob("*/*/pyproject.toml"):
        text = pyproject.read_text()
        if f'name = "{name}"' in text:
            dependencies = text.split("dependencies = [", 1)[1].split("\n]", 1)[0]
            needed = set(re.findall(r'"(juinie-[a-z-]+)"', dependencies))
            return {name}.union(*(member_needs(other) for other in needed))
    raise SystemExit(f"no workspace member is called {name}")


def subset(wanted: set[str]) -> str:
    """Everything in the lock that `wanted` asks for, directly or through others."""
    packages = entries(LOCK.read_text())
    reached = set[str]().union(*(member_needs(name) for name in wanted))
    while more := {
        name for name, (_, askers) in packages.items() if name not in reached and askers & reached
    }:
        reached |= more
    return "".join(block for name, (block, _) in packages.items() if name in reached)


if __name__ == "__main__":
    print(subset(set(sys.argv[1:])), end="")
