"""What no linter looks at: the lock fits the members, nothing is called utils.py, and every `make` target that the
workflows, the CI script or a page names is there. Without network. Exits 1 and names every fault.

    python deploy/check_tree.py
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

from lock import ROOT, asked_for, entries, members
from packaging.requirements import Requirement

CALLS_MAKE = re.compile(r"\bmake ((?:[a-z][a-z-]*\b ?)+)")
CODE_IN_PAGE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
COMMENT = re.compile(r"(?:^|\s)#.*")
TARGET = re.compile(r"^([a-z][a-z -]*):(?!=)", re.MULTILINE)


def tracked(*patterns: str) -> list[str]:
    """Files that git knows or could know (not ignored), by pattern."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for path in listed.splitlines() if (ROOT / path).is_file()]


def lock_faults() -> Iterator[str]:
    """A member's dependency that the lock lacks or pins outside its bounds, and an entry that nobody asks for."""
    packages, workspace = entries((ROOT / "requirements.lock").read_text()), members()
    pins = {name: re.findall(r"==([^ ;]+)", block)[0] for name, (block, _) in packages.items()}
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = {f"the group {name}": lines for name, lines in root["dependency-groups"].items()}
    for asker, lines in (
        {name: project["dependencies"] for name, project in workspace.items()} | groups
    ).items():
        for line in map(Requirement, lines):
            if line.name in workspace:
                continue
            if line.name not in pins or not line.specifier.contains(pins[line.name], prereleases=True):
                pinned = pins.get(line.name, "nothing")
                yield f"requirements.lock: {asker} needs {line}, it holds {pinned}: make lock"
    for name, (_, askers) in packages.items():
        for asker in askers & workspace.keys():
            if name not in asked_for(workspace[asker]):
                yield f"requirements.lock: {name} is there for {asker}, which does not ask for it: make lock"


def name_faults() -> Iterator[str]:
    """A module named after nothing."""
    for path in tracked("*utils.py", "*helpers.py"):
        yield f"{path}: name it after what is in it"


def code_of(path: str) -> str:
    """What of a file a person or a machine would run: a page's code, a script without its comments."""
    text = (ROOT / path).read_text()
    code = "\n".join(CODE_IN_PAGE.findall(text)) if path.endswith(".md") else text
    return COMMENT.sub("", code)


def target_faults() -> Iterator[str]:
    """A `make` target that is called and does not exist."""
    targets = set(" ".join(TARGET.findall((ROOT / "Makefile").read_text())).split())
    for path in tracked(".github/*", ".ci/*", "docker-compose.yml", "*.md"):
        called = set(" ".join(CALLS_MAKE.findall(code_of(path))).split())
        for target in sorted(called - targets):
            yield f"{path}: there is no `make {target}`"


if __name__ == "__main__":
    faults = [*lock_faults(), *name_faults(), *target_faults()]
    print(*faults, sep="\n", end="\n" if faults else "")
    sys.exit(bool(faults))
