"""Keys that nobody has, very many at once: they cost their sender a 401 each, and the others nothing."""

import asyncio
from collections import Counter

from juinie_api.app import serve
from juinie_api.settings import Settings
from juinie_shared.db.pool import Pool
from juinie_testkit.running import running
from juinie_testkit.seed import Seed

MADE_UP, GOOD, CONNECTIONS = 1_000, 20, 100

SLOW_LOOKS = (
    "ALTER TABLE api_key RENAME TO stored_key",
    """
    CREATE FUNCTION keys_after_a_while() RETURNS SETOF stored_key LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_sleep(0.06); RETURN QUERY SELECT * FROM stored_key; END $$
    """,
    "CREATE VIEW api_key AS SELECT * FROM keys_after_a_while()",
)
"""A database that is so busy that each look for keys takes a while."""


async def status_of(port: int, key: str) -> bytes:
    """By hand: a client's pool would take longer for a thousand requests than the server does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /v1/runs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        return (await reader.readuntil(b"\r\n")).split()[1]
    finally:
        writer.close()


async def test_good_keys_are_found_by_a_process_that_knows_none_amid_a_thousand_that_nobody_has(
    settings: Settings, pool: Pool
):
    keys = [(await Seed(pool).key()).text for _ in range(GOOD)]
    async with pool.connection() as connection:
        for statement in SLOW_LOOKS:
            await connection.execute(statement)
    async with running(serve, settings) as service:
        connections = asyncio.Semaphore(CONNECTIONS)

        async def ask(key: str) -> bytes:
            async with connections:
                return await status_of(service.port, key)

        made_up = [f"jn_{n}" for n in range(MADE_UP)]
        asked = [*made_up[::2], *keys, *made_up[1::2]]
        answers = dict(zip(asked, await asyncio.gather(*map(ask, asked)), strict=True))
    assert Counter(answers[key] for key in keys) == {b"200": GOOD}
    assert Counter(answers[key] for key in made_up) == {b"401": MADE_UP}
