"""Questions that are answered together: none twice, none by a read that had begun, and nobody's leaving is another's loss."""

import asyncio
import gc
import weakref
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, copy_context

import pytest

from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy
from juinie_shared.runtime.deadlines import Deadlines
from juinie_shared.runtime.together import Together


class Reader:
    """Reads that wait until they are let go. Even numbers have an answer."""

    def __init__(self) -> None:
        self.reads: list[list[int]] = []
        self.gate = asyncio.Semaphore(0)
        self.error: BaseException | None = None

    async def __call__(self, numbers: Sequence[int]) -> Mapping[int, str]:
        self.reads.append(list(numbers))
        await self.gate.acquire()
        if self.error is not None:
            raise self.error
        return {number: str(number) for number in numbers if number % 2 == 0}

    async def begun(self, count: int) -> None:
        while len(self.reads) < count:
            await asyncio.sleep(0)


async def some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_is_read_at_once_and_those_meanwhile_together() -> None:
    reader = Reader()
    together = Together(reader, at_once=1, most=10)
    asks = [asyncio.create_task(together.ask(0))]
    await reader.begun(1)
    asks += [asyncio.create_task(together.ask(number)) for number in (1, 2, 2, 1, 4)]
    reader.gate.release()
    await reader.begun(2)
    reader.gate.release()
    assert await asyncio.gather(*asks) == ["0", None, "2", "2", None, "4"]
    assert reader.reads == [[0], [1, 2, 4]]


async def test_a_question_that_is_being_read_is_read_again_for_who_asks_now() -> None:
    reader = Reader()
    together = Together(reader, at_once=2, most=10)
    first = asyncio.create_task(together.ask(2))
    await reader.begun(1)
    second = asyncio.create_task(together.ask(2))
    await reader.begun(2)
    reader.gate.release()
    reader.gate.release()
    assert await asyncio.gather(first, second) == ["2", "2"]
    assert reader.reads == [[2], [2]]


async def test_no_more_than_so_many_at_once_and_so_many_a_read() -> None:
    reader = Reader()
    together = Together(reader, at_once=2, most=3)
    asks = [asyncio.create_task(together.ask(number)) for number in range(9)]
    await reader.begun(2)
    await asyncio.sleep(0.01)
    assert reader.reads == [[0], [1]]
    for _ in range(9):
        reader.gate.release()
    await asyncio.gather(*asks)
    assert reader.reads[2:] == [[2, 3, 4], [5, 6, 7], [8]]


async def test_every_other_read_is_for_those_who_ask_to_be_answered_soon() -> None:
    reader = Reader()
    together = Together(reader, at_once=1, most=2)
    asks = [asyncio.create_task(together.ask(number)) for number in range(7)]
    await reader.begun(1)
    asks += [asyncio.create_task(together.ask(number, soon=True)) for number in (1, 11, 12)]
    for _ in range(9):
        reader.gate.release()
    await asyncio.gather(*asks)
    assert reader.reads == [[0], [1, 11], [1, 2], [12], [3, 4], [5, 6]]


async def test_a_read_runs_in_what_is_around_who_asked_last_however_long_others_have_asked() -> None:
    """Its patience, for one: in a chain of reads that of the first would be over for good."""
    around = ContextVar[int]("around", default=0)
    seen, gate = list[int](), asyncio.Semaphore(0)

    async def read(numbers: Sequence[int]) -> Mapping[int, int]:
        seen.append(around.get())
        around.set(-1)  # nobody else's
        await gate.acquire()
        return dict.fromkeys(numbers, around.get())

    together = Together(read, at_once=1, most=2)

    def asks(number: int, of: int) -> asyncio.Task[int | None]:
        context = copy_context()
        context.run(around.set, of)
        return asyncio.create_task(together.ask(number), context=context)

    all_asks = [asks(0, of=1)]
    for later in (2, 4, 6):
        await some_turns()
        all_asks += [asks(later, of=-later), asks(1 - later, of=100 + later), asks(later, of=later)]
        await some_turns()
        gate.release()
    for _ in all_asks:
        gate.release()
    await asyncio.gather(*all_asks)
    assert seen == [1, 2, 4, 6]


async def test_nothing_is_kept_of_who_asked_while_nobody_waits() -> None:
    class Span:
        pass

    span = Span()
    kept, around = weakref.ref(span), ContextVar[Span | None]("around", default=None)
    reader = Reader()
    together = Together(reader, at_once=1, most=10)
    contexts = [copy_context(), copy_context()]
    for context in contexts:
        context.run(around.set, span)
    first = asyncio.create_task(together.ask(0), context=contexts[0])
    await reader.begun(1)
    left = asyncio.create_task(together.ask(2), context=contexts[1])
    await some_turns()
    left.cancel()
    reader.gate.release()
    await asyncio.wait({first, left})
    await some_turns()
    del span, first, left, context, contexts
    gc.collect()
    assert kept() is None
    assert reader.reads == [[0]]


async def test_what_nobody_waits_for_any_more_is_not_read() -> None:
    reader = Reader()
    together = Together(reader, at_once=1, most=10)
    first = asyncio.create_task(together.ask(0))
    await reader.begun(1)
    leaving = [asyncio.create_task(together.ask(number)) for number in (2, 2, 4)]
    staying = [asyncio.create_task(together.ask(number)) for number in (4, 6)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    reader.gate.release()
    reader.gate.release()
    assert await asyncio.gather(first, *staying) == ["0", "4", "6"]
    assert reader.reads == [[0], [4, 6]]


async def test_one_that_spoils_a_read_spoils_it_for_nobody_else() -> None:
    reads: list[list[int]] = []

    async def read(numbers: Sequence[int]) -> Mapping[int, str]:
        reads.append(list(numbers))
        await asyncio.sleep(0)
        if 3 in numbers:
            raise ValueError("three")
        return {number: str(number) for number in numbers}

    together = Together(read, at_once=1, most=10)
    answers = await asyncio.gather(*map(together.ask, (0, 2, 3, 4)), return_exceptions=True)
    assert answers[:2] + answers[3:] == ["0", "2", "4"]
    assert isinstance(answers[2], ValueError)
    assert reads == [[0], [2, 3, 4], [2], [3], [4]]


async def test_an_error_that_passes_is_told_to_all_of_its_read_and_to_no_others() -> None:
    reader = Reader()
    together = Together(reader, at_once=1, most=10)
    asks = [asyncio.create_task(together.ask(0))]
    await reader.begun(1)
    asks += [asyncio.create_task(together.ask(number)) for number in (2, 4)]
    reader.gate.release()
    await asks[0]
    await reader.begun(2)
    asks.append(asyncio.create_task(together.ask(6)))
    await asyncio.sleep(0)
    reader.error = DatabaseAway()
    reader.gate.release()
    await reader.begun(3)
    reader.error = None
    reader.gate.release()
    told = await asyncio.gather(*asks, return_exceptions=True)
    assert [type(one) for one in told] == [str, DatabaseAway, DatabaseAway, str]
    assert reader.reads == [[0], [2, 4], [6]]


async def test_who_leaves_takes_nobody_s_answer_away() -> None:
    reader = Reader()
    together = Together(reader, at_once=1, most=10)
    first = asyncio.create_task(together.ask(0))
    await reader.begun(1)
    leaving, staying = asyncio.create_task(together.ask(2)), asyncio.create_task(together.ask(2))
    await asyncio.sleep(0)
    leaving.cancel()
    reader.gate.release()
    reader.gate.release()
    assert (await first, await staying) == ("0", "2")
    assert reader.reads == [[0], [2]]
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_who_has_no_patience_left_is_told_so_and_the_others_get_their_answer() -> None:
    reader = Reader()
    together = Together(reader, at_once=1, most=10, patience=Deadlines(0.05, late=DatabaseBusy))
    impatient = asyncio.create_task(together.ask(2))
    await reader.begun(1)
    with pytest.raises(DatabaseBusy):
        await impatient
    staying = asyncio.create_task(together.ask(4))
    await asyncio.sleep(0)
    reader.gate.release()
    reader.gate.release()
    assert await staying == "4"


async def test_an_error_that_nobody_waits_for_is_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.error = ValueError("away")
    together = Together(reader, at_once=1, most=10)
    leaving = asyncio.create_task(together.ask(2))
    await reader.begun(1)
    leaving.cancel()
    reader.gate.release()
    await asyncio.sleep(0.01)
    del leaving, together
    assert not caplog.records
