"""Questions that come while others are being answered are answered together, by one read.

A read answers only what was asked before it began, so every answer is of a moment after its question. An error that will pass is
told to all who asked; any other may be one question's alone, so each is then asked by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from itertools import islice

from juinie_shared.domain.errors import Transient
from juinie_shared.runtime.deadlines import Deadlines

type Read[Q, A] = Callable[[Sequence[Q]], Awaitable[Mapping[Q, A]]]
"""Answers for these questions, all different. One that has no answer is left out."""


@dataclass(slots=True)
class _Asked[A]:
    """A question that waits: who asked it, and how many of them still wait."""

    answers: list[asyncio.Future[A | None]] = field(default_factory=list[asyncio.Future[A | None]])
    askers: int = 0
    waits: bool = True
    """No read has taken it yet."""

    def tell(self, answer: A | None) -> None:
        for waiting in self.answers:
            if not waiting.done():
                waiting.set_result(answer)

    def fail(self, error: Exception) -> None:
        for waiting in self.answers:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # seen: perhaps it is broken off in this very turn

    def cancel(self) -> None:
        for waiting in self.answers:
            waiting.cancel()


class Together[Q: Hashable, A]:
    """`await ask(question)`: at most `at_once` reads are under way, each of at most `most` questions, in the order they came. What is
    asked `soon` waits in a line of its own: every other read is of that one, where both wait.
    `patience`: how long each of those who ask waits; None: for as long as it takes.
    """

    def __init__(self, read: Read[Q, A], at_once: int, most: int, patience: Deadlines | None = None) -> None:
        self._read, self._at_once, self._most, self._patience = read, at_once, most, patience
        self._waiting: dict[Q, _Asked[A]] = {}
        self._waiting_soon: dict[Q, _Asked[A]] = {}
        self._was_soon = False
        self._reading: set[asyncio.Task[None]] = set()
        self._around: Context | None = None
        """Of who asked last. A read runs in it: it has that one's patience and trace, and not those of somebody who left long ago."""

    async def ask(self, question: Q, *, soon: bool = False) -> A | None:
        """The answer, or None where there is none. Raises what the read raises, and what `patience` says of who waits too long."""
        self._around = copy_context()
        line = self._waiting_soon if soon else self._waiting
        asked = line.get(question)
        if asked is None:
            asked = line[question] = _Asked[A]()
            self._begin()
        answer: asyncio.Future[A | None] = asyncio.get_running_loop().create_future()
        asked.answers.append(answer)  # a future each: who leaves takes nobody's answer away
        asked.askers += 1
        try:
            return await (self._patience.wait(answer) if self._patience else answer)
        finally:
            asked.askers -= 1
            if asked.waits and not asked.askers:
                del line[question]  # all have left: nothing is read for nobody
                self._forget_around()

    def _begin(self) -> None:
        """Read what waits, unless enough is being read."""
        if (self._waiting or self._waiting_soon) and len(self._reading) < self._at_once:
            taken = self._take()
            for asked in taken.values():
                asked.waits = False
            reading = asyncio.create_task(
                self._answer(taken), context=None if self._around is None else self._around.copy()
            )
            self._forget_around()
            self._reading.add(reading)
            reading.add_done_callback(self._end)

    def _take(self) -> dict[Q, _Asked[A]]:
        """As many as one read answers. Questions may be dear to hash, so none is looked up where all of them are taken."""
        self._was_soon = bool(self._waiting_soon) and not (self._was_soon and self._waiting)
        line = self._waiting_soon if self._was_soon else self._waiting
        if len(line) <= self._most:
            taken = line.copy()
            line.clear()
        else:
            taken = dict(islice(line.items(), self._most))
            for question in taken:
                del line[question]
        return taken

    def _forget_around(self) -> None:
        """Nothing is kept of who asked while nobody waits."""
        if not (self._waiting or self._waiting_soon):
            self._around = None

    def _end(self, reading: asyncio.Task[None]) -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            self._begin()

    async def _answer(self, taken: Mapping[Q, _Asked[A]]) -> None:
        try:
            if not await self._answer_all(taken):
                for question, asked in taken.items():
                    await self._answer_all({question: asked})
        finally:
            for asked in taken.values():
                asked.cancel()  # those that have no answer: the read was broken off

    async def _answer_all(self, taken: Mapping[Q, _Asked[A]]) -> bool:
        """Ask together. False: they are to be asked alone, because one of them spoils it for the others."""
        try:
            answers = await self._read(list(taken))
        except Exception as error:  # noqa: BLE001 - it is those who asked that it is for
            if len(taken) > 1 and not isinstance(error, Transient):
                return False
            for asked in taken.values():
                asked.fail(error)
        else:
            for question, asked in taken.items():
                asked.tell(answers.get(question))
        return True
