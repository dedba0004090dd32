"""The peers' own programs: taken into `.juinie/bench/` at their first use, each in the version that is named here, and run.

They are no part of the workspace, whose lock knows nothing of them. What cannot be had here is said, never left out in silence.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from juinie_standalone.children import Child, spawn, wait_until

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".juinie" / "bench"
_START_SECONDS, _STOP_SECONDS = 60, 10


class Missing(Exception):
    """A peer that cannot be had here. Says what, and what would help."""


def python_of(pins: Path, kept: Path = KEPT) -> Path:
    """A Python with exactly the packages of `pins`, in a venv that has the name of the file.

    Raises:
        Missing: uv is not here, or did not get them.
    """
    venv = kept / pins.stem
    done = venv / "pins"
    python = venv / "bin" / "python"
    if not done.exists() or done.read_text() != pins.read_text():
        uv = _uv()
        _get([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)], pins.stem)
        _get(
            [uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python), "-r", str(pins)],
            pins.stem,
        )
        done.write_text(pins.read_text())
    return python


def _uv() -> str:
    """Where it is, as the Makefile looks for it."""
    for uv in (shutil.which("uv"), str(ROOT / ".juinie" / "tools" / "bin" / "uv")):
        if uv and subprocess.run([uv, "--version"], capture_output=True, check=False).returncode == 0:
            return uv
    raise Missing("There is no uv here; `make install` brings one.")


def go_program(name: str, module: str, version: str, kept: Path = KEPT) -> Path:
    """The program of this name, built of exactly this version of its Go module.

    Raises:
        Missing: Go is not here, or could not get or build it.
    """
    directory = kept / f"{name}-{version}"
    program = directory / name
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            raise Missing(f"{name} is built here, and there is no Go.")
        _get([go, "install", f"{module}@{version}"], name, {"GOBIN": str(directory)})
    return program


def given_program(name: str, path: Path | None) -> Path:
    """A program that its makers hand out as such: the one that is named, or that is on the path.

    Raises:
        Missing: there is none.
    """
    found = path or (Path(on_path) if (on_path := shutil.which(name)) else None)
    if found is None or not os.access(found, os.X_OK):
        raise Missing(f"There is no {name} here: name one with --{name}, or have it on the PATH.")
    return found


def _get(command: Sequence[str], name: str, settings: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=os.environ | dict(settings or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-3:])
        raise Missing(
            f"{name} could not be had: {' '.join(command[:3])} … ended with {done.returncode}:\n{last}"
        )


@contextmanager
def running(
    name: str, command: Sequence[str], log: Path, settings: Mapping[str, str], is_ready: Callable[[], bool]
) -> Generator[Child]:
    """A peer's process from when it is ready. It gets nothing of our environment but where programs are.

    Raises:
        StandaloneError: it ended, or was not ready in time.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(log.parent), **settings}
    child = spawn(command, log, env=environment, dies_with_parent=True)
    try:
        wait_until(child, name, is_ready, _START_SECONDS)
        yield child
    finally:
        child.stop(signal.SIGTERM, _STOP_SECONDS)
