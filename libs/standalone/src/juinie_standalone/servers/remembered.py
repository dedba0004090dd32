"""Ports that were chosen once and are kept: the same again at the next start, while they are free."""

from pathlib import Path

from juinie_standalone.ports import free_ports, is_free


def remembered_ports(file: Path, count: int) -> list[int]:
    """The ports in `file` when all of them are free, otherwise new ones, which are written there."""
    try:
        ports = [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        ports = []
    if len(ports) != count or not all(is_free(port) for port in ports):
        ports = free_ports(count)
        file.write_text(" ".join(map(str, ports)))
    return ports
