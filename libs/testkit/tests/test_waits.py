"""A wait that ran out of time says what was still missing."""

import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.seed import Seed
from juinie_testkit.waits import StillMissing, await_outbox_flush, eventually


async def test_eventually_gives_the_first_true_answer_of_a_plain_or_an_async_probe():
    answers = iter([0, None, 7])
    assert await eventually(lambda: next(answers), 5, "a number") == 7

    async def probe() -> str:
        return "yes"

    assert await eventually(probe, 5, "a yes") == "yes"


async def test_eventually_says_what_was_waited_for_and_what_was_seen_last():
    with pytest.raises(
        StillMissing, match=r"After 0.01 s still not: a light in the window. The last answer: \[\]."
    ):
        await eventually(list, 0.01, "a light in the window")


async def test_flush_waits_for_the_rows_of_its_run_only(pool: Pool):
    seed = Seed(pool)
    mine, other = await seed.run("a"), await seed.run("a")
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM outbox WHERE run_id = $1", mine)
    await await_outbox_flush(pool, mine, timeout_seconds=1)
    with pytest.raises(StillMissing):
        await await_outbox_flush(pool, other, timeout_seconds=0.01)


async def test_flush_that_does_not_come_says_which_seqs_are_unsent(pool: Pool):
    seed = Seed(pool)
    run_id = await seed.run("a")
    await seed.append(run_id, ("a", 1), ("b", 2))
    with pytest.raises(StillMissing) as missing:
        await await_outbox_flush(pool, run_id, timeout_seconds=0.01)
    message = str(missing.value)
    assert message.startswith(f"After 0.01 s 2 outbox rows of run {run_id} were unsent: seq 1..1, ")
    assert "; seq 2..3, " in message
    assert message.endswith(" The run's last seq: 3.")
