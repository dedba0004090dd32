"""`.juinie`: everything that the stack keeps, and how a later command knows its processes again."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from juinie_standalone.children import Child, Identity


@dataclass(frozen=True)
class Home:
    """The paths below one directory, which belongs to one stack."""

    directory: Path

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def env_file(self) -> Path:
        return self.directory / "env"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def pid_file(self, name: str) -> Path:
        return self.directory / "pids" / f"{name}.pid"

    def remember(self, name: str, child: Child) -> None:
        """Write the pid for people and scripts, and beside it what tells this process from a later one."""
        write(self.pid_file(name), f"{child.pid}\n")
        write(self._identity(name), json.dumps({"pid": child.pid, "started": child.identity.started}))

    def recall(self, name: str) -> Child | None:
        """The process remembered by this name, which may be dead by now."""
        try:
            identity = Identity(**json.loads(self._identity(name).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return Child(identity, self.log(name))

    def forget(self, name: str) -> None:
        self.pid_file(name).unlink(missing_ok=True)
        self._identity(name).unlink(missing_ok=True)

    def write_env(self, values: Mapping[str, str]) -> None:
        """Shell lines; the last one exports all, so that sourcing the file is enough."""
        lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
        write(self.env_file, "\n".join([*lines, f"export {' '.join(values)}"]) + "\n")

    def _identity(self, name: str) -> Path:
        return self.directory / "state" / f"{name}.json"


def home_of_environment() -> Home:
    """`JUINIE_HOME`, or `.juinie` where the command runs."""
    return Home(Path(os.environ.get("JUINIE_HOME") or ".juinie").absolute())


def write(path: Path, text: str) -> None:
    """Write a small file whole or not at all, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.new")
    made.write_text(text)
    made.chmod(0o600)
    made.replace(path)
