"""Where Juinie runs: the stack that the environment names, else the one that `make up` started."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import httpx

SETTINGS = ("JUINIE_API_URL", "JUINIE_STREAM_URL", "JUINIE_API_KEY")
ENV_FILE = Path(__file__).parent.parent / ".juinie" / "env"


@dataclass(frozen=True)
class Stack:
    """Two addresses and a key."""

    api_url: str
    stream_url: str
    key: str

    def client(self, base_url: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=base_url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30
        )


def find_stack() -> Stack:
    """The stack to use, or the end with one line that says what is missing."""
    found = dict(os.environ)
    if ENV_FILE.exists() and not all(name in found for name in SETTINGS):
        words = shlex.split(ENV_FILE.read_text(), comments=True)
        found = dict(word.split("=", 1) for word in words if "=" in word) | found
    if missing := [name for name in SETTINGS if not found.get(name)]:
        raise SystemExit(f"No stack is running here: run `make up` first, or set {', '.join(missing)}.")
    return Stack(*(found[name] for name in SETTINGS))
