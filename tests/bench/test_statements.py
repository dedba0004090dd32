"""What is counted between a service and its Postgres."""

from collections.abc import Callable
from types import ModuleType

import pytest

from juinie_shared.db.pool import open_pool


async def test_statements_and_round_trips_are_counted(
    bench_module: Callable[[str], ModuleType], database_url: str
):
    async with bench_module("statements").Statements(database_url) as statements:
        pool = await open_pool(statements.url, "counted")
        async with pool.connection() as connection:
            assert await connection.fetchval("SELECT $1::int + 1", 1) == 2
            before = statements.round_trips
            for number in range(5):
                assert await connection.fetchval("SELECT $1::int + 1", number) == number + 1
            await connection.execute("NOTIFY somebody")
        await pool.close()
        assert statements.round_trips - before == 6
        assert statements.times("::int + 1") == 6
        assert statements.times("NOTIFY") == 1


async def test_an_answer_with_more_rows_than_a_socket_takes_comes_whole(
    bench_module: Callable[[str], ModuleType], database_url: str
):
    async with bench_module("statements").Statements(database_url) as statements:
        pool = await open_pool(statements.url, "counted")
        async with pool.connection() as connection:
            rows = await connection.fetch("SELECT repeat('x', 1000) AS x FROM generate_series(1, 5000)")
            assert [len(row["x"]) for row in rows] == [1000] * 5000
        await pool.close()


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


ROWS = [message(b"D", b"x" * length) for length in (0, 1, 300)]
ANSWERS = [
    b"N",
    message(b"R", b"0000"),
    message(b"1", b"") + message(b"2", b"") + b"".join(ROWS) + message(b"C", b"SELECT 3\0"),
    message(b"Z", b"I"),
    message(b"A", b"juinie"),
]


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1000])
def test_rows_are_handed_on_with_what_ends_their_answer(bench_module: Callable[[str], ModuleType], size: int):
    answer, handed_on = bench_module("statements")._Answer(), list[bytes]()
    for said in ANSWERS:
        pieces = [said[start : start + size] for start in range(0, len(said), size)]
        handed_on += filter(None, map(answer.take, pieces))
    assert b"".join(handed_on) == b"".join(ANSWERS)
    with_rows = [piece for piece in handed_on if ROWS[2] in piece]
    assert len(with_rows) == 1
    assert with_rows[0].endswith(message(b"C", b"SELECT 3\0"))
