"""Several logs as one: the last lines of each, then what comes."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from juinie_standalone.children import last_lines

_POLL_SECONDS = 0.2


def follow(logs: Mapping[str, Path], lines: int, *, go_on: bool) -> None:
    """Print the last `lines` of each log, each line with its log's name; then new ones until Ctrl-C."""
    positions = {name: _size(log) for name, log in logs.items()}
    for name, log in logs.items():
        for line in last_lines(log, lines):
            _show(name, line)
    with suppress(KeyboardInterrupt):
        while go_on:
            for name, log in logs.items():
                for line, position in _lines_from(log, positions[name]):
                    positions[name] = position
                    _show(name, line)
            time.sleep(_POLL_SECONDS)


def _lines_from(log: Path, position: int) -> Iterator[tuple[str, int]]:
    """Whole lines after a position, each with the position behind it. A log that shrank is read from its start."""
    if not log.exists():
        return
    if position > _size(log):
        position = 0
    with log.open("rb") as file:
        file.seek(position)
        for line in file:
            if line.endswith(b"\n"):
                position += len(line)
                yield line.decode(errors="replace").rstrip(), position


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _show(name: str, line: str) -> None:
    print(f"{name:<15} {line}", flush=True)
