"""The per-user cache of downloads: what lies under its final name is whole and checked.

Everything is written beside its place under a temporary name and renamed when it is complete, under a lock per
entry, so several processes may want the same thing at once and a broken download is never taken for a good one.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from juinie_standalone.errors import DISK_FULL, DownloadFailed, is_disk_full


def cache_dir() -> Path:
    """`JUINIE_CACHE_DIR`, or `juinie` in the user's cache directory."""
    given = os.environ.get("JUINIE_CACHE_DIR")
    if given:
        return Path(given).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "juinie"


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the lock file `path`; waits for whoever holds it now. The lock ends with the process, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetched_once(place: Path, is_good: Callable[[Path], bool], fetch: Callable[[Path], None]) -> Path:
    """`place`, made by `fetch(temporary directory)` unless a good one is there already.

    A first attempt that fails, or brings something that is not good, is made once more.

    Raises:
        DownloadFailed: the second attempt failed as well, or the disk is full.
    """
    try:
        if not is_good(place):
            with locked(place.with_name(place.name + ".lock")):
                if not is_good(place):
                    _fetch_twice_at_most(place, is_good, fetch)
    except OSError as error:
        if is_disk_full(error):
            raise _no_space(place) from error
        raise DownloadFailed(f"Cannot write the download cache {place.parent}: {error.strerror}.") from error
    return place


def _fetch_twice_at_most(place: Path, is_good: Callable[[Path], bool], fetch: Callable[[Path], None]) -> None:
    try:
        _fetch_into_place(place, is_good, fetch)
    except DownloadFailed as error:
        if is_disk_full(str(error)):
            raise _no_space(place) from error
        _fetch_into_place(place, is_good, fetch)


def _fetch_into_place(place: Path, is_good: Callable[[Path], bool], fetch: Callable[[Path], None]) -> None:
    made = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        made.chmod(0o755)  # a server that runs as another user has to read it
        fetch(made)
        if not is_good(made):
            raise DownloadFailed(f"What was downloaded for {place.name} is not what its pinned hashes say.")
        with suppress(FileNotFoundError):
            shutil.rmtree(place)
        made.rename(place)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _no_space(place: Path) -> DownloadFailed:
    return DownloadFailed(
        f"{DISK_FULL.capitalize()} while downloading {place.name} into {place.parent}: free some space, "
        "or name another directory in JUINIE_CACHE_DIR."
    )
