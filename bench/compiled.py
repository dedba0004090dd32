"""Small programs in C that are compiled where they run."""

import shutil
import subprocess
from pathlib import Path


class NotCompiled(OSError):
    """There is no C compiler here (`cc`), or it does not take a program of ours."""


def compiled(source: str, into: Path, *options: str) -> Path:
    """What comes of this file of `bench/`: a program, or with `-shared` a library.

    Raises:
        NotCompiled
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotCompiled(f"{source} is a C program, and there is no C compiler (cc) here")
    path = Path(__file__).parent / source
    made = into / path.stem
    done = subprocess.run(
        [compiler, "-O2", *options, "-o", made, path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotCompiled(f"cc does not take {source}: {done.stderr.strip()}")
    return made
