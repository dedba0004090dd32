"""Siblings ask each other what a probe wants to know: it reaches any of them, and its answer is to be true for all.

Over Unix sockets, a question a connection: a word and a line's end, then the answer until its end. One that does not answer in
time is silent: it hangs, or is stopped, also when so many have asked it that the kernel takes no more. One that ends before its answer is whole
is absent, as is one for which the parent turns questions away: it is being replaced, or has just begun.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Literal, cast

import msgspec

from juinie_shared.runtime.meeting_point import is_own
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
        server = await asyncio.start_unix_server(self._answer, sock=self._sibling.take_questions())
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def ask[A](self, question: Question, decode: Callable[[bytes], A]) -> dict[int, A | No]:
        """What each of the others says, by its index; within `ANSWER_SECONDS`, whatever hangs.

        `decode` raises `msgspec.DecodeError` for what is no answer: a sibling may die in the middle of one, or be of another version.
        """
        others = [index for index in range(self._sibling.count) if index != self._sibling.index]
        answers = await asyncio.gather(*(self._ask_one(index, question, decode) for index in others))
        return dict(zip(others, answers, strict=True))

    async def _ask_one[A](self, index: int, question: Question, decode: Callable[[bytes], A]) -> A | No:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await _ask(self._sibling.address_of(index), question)
            return decode(answer) if answer else No.ABSENT
        except (TimeoutError, BlockingIOError):  # what it has not accepted is as much as the kernel keeps
            return No.SILENT
        except (OSError, msgspec.DecodeError):  # also where this process has no descriptor left to ask with
            return No.ABSENT

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError, ValueError):
            if not is_own(cast("socket.socket", writer.get_extra_info("socket"))):
                return
            async with asyncio.timeout(ANSWER_SECONDS):
                if answer := self._answers.get(await reader.readline()):
                    writer.write(await answer())
                    await writer.drain()


async def _ask(address: str, question: Question) -> bytes:
    """Empty where the other end goes before it has answered, or is somebody else's."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.setblocking(False)
    try:
        peer.connect(address)  # at once or not at all: a loop would wait where the kernel takes no more
        if not is_own(peer):
            peer.close()
            return b""
        reader, writer = await asyncio.open_unix_connection(sock=peer, limit=_MOST_BYTES)
    except BaseException:
        peer.close()
        raise
    with contextlib.closing(writer):
        writer.write(f"{question}\n".encode())
        return await reader.read()
