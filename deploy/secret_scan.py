"""No secret lies in a file that git knows or could know: detect-secrets with all its detectors, and one for Juinie's own keys.

What looks like a secret and is none is in `ALLOWED`, by its text and with the reason: a line may move, another text does not
pass. A single line may say so itself: `pragma: allowlist secret`. Prints places, never what was found there. Exits 1 when there are any.

Without files, also what git's history ever added, as far back as this clone goes; there without the detectors that guess.

    python deploy/secret_scan.py [FILE…]
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from check_tree import tracked
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings
from lock import ROOT

ALLOWED = {
    "jn_dev_local_only": "the development key: public, and refused outside JUINIE_ENV=dev",
    "juinie": "Postgres's password in docker-compose.yml and in CI: on 127.0.0.1 only",
    "password": "the word, in a message that shows what a URL looks like",  # pragma: allowlist secret
}
OUR_KEY = re.compile(r"\bjn_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
HASHES = re.compile(r"(^|/)(requirements\.lock|package-lock\.json)$|(^|/)pins/")
TESTS = re.compile(r"(^|/)(tests|testkit)/")
GUESSES = {
    "Secret Keyword",
    "Basic Auth Credentials",
    "Hex High Entropy String",
    "Base64 High Entropy String",
}
"""Detectors that go by a name or by how random a text looks. Tests are made of such, so there they are left out."""


def found_in(path: str) -> Iterator[str]:
    """Each place of a file where a secret is."""
    for secret in scan_file(str(ROOT / path)):
        guessed = secret.type in GUESSES and TESTS.search(path)
        if secret.secret_value not in ALLOWED and not guessed:
            yield f"{path}:{secret.line_number}: {secret.type}"
    for number, line in enumerate((ROOT / path).read_text(errors="replace").splitlines(), 1):
        if OUR_KEY.search(line):
            yield f"{path}:{number}: Juinie API key"


def found_in_history(repository: Path) -> Iterator[str]:
    """Each commit and file where a secret was added, though it may be gone since."""
    added = _added_lines(repository)
    text = "\n".join(added)
    found = {(kind, match) for kind, matches in _certain(text) for match in matches if match not in ALLOWED}
    for kind, secret in found:
        yield from (f"{place}: {kind}, in the history" for line, place in added.items() if secret in line)


def _certain(text: str) -> Iterator[tuple[str, set[str]]]:
    yield "Juinie API key", set(OUR_KEY.findall(text))
    for detector in _detectors():
        yield detector.secret_type, set(detector.analyze_string(text))


@cache
def _detectors() -> list[Any]:
    """All that do not guess, and whose finds are secrets."""
    left_out = GUESSES | {"Public IP (ipv4)"}
    return [kind() for name, kind in get_mapping_from_secret_type_to_class().items() if name not in left_out]


def _added_lines(repository: Path) -> dict[str, str]:
    """Every line that a commit added, once, and where."""
    command = [
        "git",
        "-C",
        str(repository),
        "log",
        "-p",
        "-U0",
        "--no-color",
        "--no-ext-diff",
        "--format=commit %h",
    ]
    log = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout
    commit, path, added = "", "", dict[str, str]()
    for line in log.split("\n"):
        if line.startswith("commit "):
            commit = line.removeprefix("commit ")
        elif line.startswith("+++ "):
            path = line.removeprefix("+++ b/")
        elif line.startswith("+") and not HASHES.search(path) and "pragma: allowlist secret" not in line:
            added[line[1:]] = f"{commit}:{path}"
    return added


def main(paths: list[str]) -> int:
    chosen = paths or [path for path in tracked() if not HASHES.search(path)]
    with default_settings():
        places = {place for path in chosen if Path(ROOT / path).is_file() for place in found_in(path)}
        found = sorted(places if paths else places.union(found_in_history(ROOT)))
    print(*found, f"scanned for secrets: {len(chosen)} files, {len(found)} found", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
