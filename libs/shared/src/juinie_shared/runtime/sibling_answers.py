"""Siblings ask each other what a probe wants to know: it reaches any of them, and its answer is to be true for all.

Over Unix sockets, a question a connection: a word and a line's end, then the answer until its end. One that does not answer in
time is silent: it hangs, or is stopped. One that cannot be reached is absent: it is being replaced, or has just begun.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Literal

from juinie_shared.runtime.sibling import Sibling

ANSWER_SECONDS = 0.8
"""Below a second, which orchestrators give a probe when nobody says more."""
_MOST_BYTES = 64 * 1024 * 1024

type Question = Literal["live", "ready", "metrics"]


class No(Enum):
    """Why there is no answer."""

    ABSENT = "absent"
    SILENT = "silent"


class SiblingAnswers:
    """`run()` it in a task, and `ask` from anywhere."""

    def __init__(self, sibling: Sibling, answers: Mapping[Question, Callable[[], Awaitable[bytes]]]) -> None:
        self._sibling = sibling
        self._answers: dict[bytes, Callable[[], Awaitable[bytes]]] = {
            f"{question}\n".encode(): answer for question, answer in answers.items()
        }

    async def run(self) -> None:
        """Answer for ever."""
        listener = _listen(self._sibling.address_of(self._sibling.index))
        server = await asyncio.start_unix_server(self._answer, sock=listener)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def ask(self, question: Question) -> dict[int, bytes | No]:
        """What each of the others says, by its index; within `ANSWER_SECONDS`, whatever hangs."""
        others = [index for index in range(self._sibling.count) if index != self._sibling.index]
        answers = await asyncio.gather(*(self._ask_one(index, question) for index in others))
        return dict(zip(others, answers, strict=True))

    async def _ask_one(self, index: int, question: Question) -> bytes | No:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await _ask(self._sibling.address_of(index), question) or No.ABSENT
        except TimeoutError:
            return No.SILENT
        except OSError:
            return No.ABSENT

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(ANSWER_SECONDS):
                if answer := self._answers.get(await reader.readline()):
                    writer.write(await answer())
                    await writer.drain()


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if not address.startswith("\0"):
        Path(address).unlink(missing_ok=True)  # its predecessor's
    listener.bind(address)
    listener.listen()
    return listener


async def _ask(address: str, question: Question) -> bytes:
    """Empty where the other end goes before it has answered."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(peer, address)
        reader, writer = await asyncio.open_unix_connection(sock=peer, limit=_MOST_BYTES)
    except BaseException:
        peer.close()
        raise
    with contextlib.closing(writer):
        writer.write(f"{question}\n".encode())
        return await reader.read()
