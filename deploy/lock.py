"""The one lock, cut to what one member needs.

`requirements.lock` names, under each package, which packages asked for it ("# via"). Following those names from a
member (or from a locked package) gives its part of the lock with the hashes kept: no resolver, no network.

    python deploy/lock.py juinie-api juinie-testkit hatchling > subset.txt
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NAME = re.compile(r"[A-Za-z0-9._-]+")


def entries(text: str) -> dict[str, tuple[str, set[str]]]:
    """Read each package's block and the names that asked for it: {name: (block, askers)}."""
    found: dict[str, tuple[str, set[str]]] = {}
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE):
        if head := re.match(r"([a-z0-9._-]+)==", block):
            askers = re.findall(r"^ +#(?: via)? +(?!via$)([a-z0-9._-]+)$", block, flags=re.MULTILINE)
            found[head[1]] = (block, set(askers))
    return found


def members() -> dict[str, dict[str, Any]]:
    """Every workspace member's `[project]` table by its name, as far as its pyproject.toml is there."""
    projects = (tomllib.loads(path.read_text())["project"] for path in ROOT.glob("*/*/pyproject.toml"))
    return {project["name"]: project for project in projects}


def asked_for(project: dict[str, Any]) -> set[str]:
    """The names of what a member depends on, members and packages alike."""
    return {NAME.findall(line)[0].lower() for line in project.get("dependencies", [])}


def subset(wanted: set[str]) -> str:
    """Everything in the lock that `wanted` asks for, directly or through others.

    Raises:
        KeyError: a name that is neither a member nor in the lock.
    """
    packages, workspace = entries((ROOT / "requirements.lock").read_text()), members()
    reached = set[str]()
    open_names = set(wanted)
    while open_names:
        name = open_names.pop()
        reached.add(name)
        if name in workspace:
            open_names |= asked_for(workspace[name]) - reached
        else:
            packages[name]  # known, or said so
            open_names |= {
                other for other, (_, askers) in packages.items() if name in askers and other not in reached
            }
    return "".join(block for name, (block, _) in packages.items() if name in reached)


if __name__ == "__main__":
    try:
        print(subset(set(sys.argv[1:])), end="")
    except KeyError as error:
        sys.exit(f"{error} is no workspace member and not in requirements.lock")
