"""Kafka's jars: every coordinate and every hash is pinned; nothing is resolved when it is fetched.

Naming only the top coordinates would let a resolver pick another kafka-clients, with which the broker dies.
The fetching is jgo's, with the repositories that the user has set for it; what comes is checked by SHA-256.
"""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from juinie_standalone.cache import cache_dir, fetched_once
from juinie_standalone.errors import DownloadFailed, is_disk_full
from juinie_standalone.progress import counting

KAFKA_VERSION = "4.3.1"
_PIN = "kafka-jars.txt"
_AT_ONCE = 4
_REPOSITORY = ".repository"  # jgo's layout, until each jar is checked and moved out of it


@dataclass(frozen=True)
class Jar:
    """One pinned jar."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def kafka_jars() -> list[Jar]:
    """What the pin file names, one `group:artifact:version sha256` a line."""
    lines = files("juinie_standalone").joinpath("pins", _PIN).read_text().splitlines()
    return [_jar(line) for line in lines if line]


def _jar(line: str) -> Jar:
    coordinate, sha256 = line.split()
    group, artifact, version = coordinate.split(":")
    return Jar(group, artifact, version, sha256)


def fetched_kafka() -> Path:
    """A directory that holds the pinned jars, each of them checked.

    Raises:
        DownloadFailed: not reachable, a wrong hash twice, a full disk.
    """
    return fetched_once(cache_dir() / f"kafka-{KAFKA_VERSION}", _holds_all, _fetch_all)


def _holds_all(place: Path) -> bool:
    return all(is_pinned(place / jar.file_name, jar) for jar in kafka_jars())


def is_pinned(path: Path, jar: Jar) -> bool:
    """Whether the file is there and has the pinned hash: 30 MB take a tenth of a second."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256


def _fetch_all(target: Path) -> None:
    jars = kafka_jars()
    with (
        counting(f"downloading Kafka {KAFKA_VERSION} ({len(jars)} jars)", len(jars)) as one_more,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        for _ in pool.map(partial(_fetch, target), jars):
            one_more()
    shutil.rmtree(target / _REPOSITORY)


def _fetch(target: Path, jar: Jar) -> None:
    try:
        found = _download(jar, target / _REPOSITORY)
    except Exception as error:
        if isinstance(error, OSError) and is_disk_full(error):
            raise
        raise DownloadFailed(
            f"Downloading {jar.file_name} failed: {' '.join(str(error).split())[:300]}"
        ) from error
    if not is_pinned(found, jar):
        raise DownloadFailed(
            f"{jar.file_name} is not what is pinned (its SHA-256 differs): a broken download, or a changed file."
        )
    found.rename(target / jar.file_name)


def _download(jar: Jar, repository: Path) -> Path:
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext, PythonResolver

    repositories = GlobalSettings.load().repositories or None
    context = MavenContext(PythonResolver(), repository, remote_repos=repositories, timeout=60)
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    found = context.resolver.download(artifact)
    if found is None:
        raise DownloadFailed(f"{jar.file_name} is in none of the repositories that jgo knows.")
    return found
