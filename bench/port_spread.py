"""How evenly two processes share the connections to one port: with a listener each (SO_REUSEPORT), as the services do it,
or all accepting from the same one. Each connection costs its process as much work as an attach, in a plain uvloop server.

.venv/bin/python bench/port_spread.py
"""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvloop

from juinie_shared.runtime.port import share_port, take_port
from juinie_shared.runtime.process import allow_descriptors

PROCESSES = 2
ROUNDS = 5
WORK = 3_000
"""Additions: some 150 µs."""


class Greeter(asyncio.Protocol):
    """Tells who it is: one byte."""

    index = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        sum(range(WORK))
        transport.write(bytes([self.index]))


def serve(index: int, listener: socket.socket) -> None:
    """For ever, in this process."""

    async def serving() -> None:
        Greeter.index = index
        await asyncio.get_running_loop().create_server(Greeter, sock=listener, backlog=2048)
        await asyncio.Event().wait()

    uvloop.run(serving())


@contextmanager
def processes(listeners: list[socket.socket]) -> Iterator[int]:
    """One for each listener. Gives their port."""
    pids = []
    for index, listener in enumerate(listeners):
        if (pid := os.fork()) == 0:
            serve(index, listener)
        pids.append(pid)
    try:
        yield listeners[0].getsockname()[1]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for listener in listeners:
            listener.close()


async def counted(port: int, connections: int, *, at_once: bool) -> list[int]:
    """How many each got of connections that stay open."""
    got, kept = [0] * PROCESSES, []

    async def connect() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        got[(await reader.readexactly(1))[0]] += 1
        kept.append(writer)

    if at_once:
        await asyncio.gather(*(connect() for _ in range(connections)))
    else:
        for _ in range(connections):
            await connect()
    for writer in kept:
        writer.close()
    return sorted(got)


WAYS: dict[str, Callable[[], list[socket.socket]]] = {
    "a listener each": lambda: share_port("127.0.0.1", 0, PROCESSES),
    "one for all": lambda: [take_port("127.0.0.1", 0)] * PROCESSES,
}


def main() -> None:
    allow_descriptors()
    crowds: dict[str, Callable[[int], Awaitable[list[int]]]] = {
        "1,000 streams at once": lambda port: counted(port, 1000, at_once=True),
        "1,000 streams, one by one": lambda port: counted(port, 1000, at_once=False),
        "32 kept connections": lambda port: counted(port, 32, at_once=True),
    }
    for name, crowd in crowds.items():
        for way, listeners in WAYS.items():
            found = []
            for _ in range(ROUNDS):
                with processes(listeners()) as port:
                    found.append(uvloop.run(crowd(port)))
            print(f"{name:28} {way:16} {'  '.join(f'{few}/{many}' for few, many in found)}")


if __name__ == "__main__":
    main()
