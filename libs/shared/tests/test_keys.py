"""API keys: shown once, stored as a hash, refused alike whether unknown, revoked or expired."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import pytest

from juinie_shared.contracts.names import DEV_API_KEY
from juinie_shared.db.keys import (
    create_key,
    ensure_dev_key,
    find_key,
    find_keys,
    find_keys_by_id,
    hash_key,
    list_keys,
    refuse_dev_key,
    revoke_key,
)
from juinie_shared.db.pool import Connection, Pool, open_pool
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy, DevKeyOutsideDev, NotAuthenticated
from juinie_shared.domain.ids import KeyId
from juinie_shared.domain.runs import Scope
from juinie_shared.runtime import keys
from juinie_shared.runtime.keys import LONGEST_KEY, MOST_KEYS, KeyRing
from juinie_testkit.proxy import Proxy
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

EXPIRE = "UPDATE api_key SET expires_at = clock_timestamp() WHERE key_id = $1"

MANY_KEYS = """
    WITH made AS (INSERT INTO tenant (tenant_id, name) VALUES (gen_random_uuid(), 'many') RETURNING tenant_id)
    INSERT INTO api_key (key_id, tenant_id, hash, scopes)
    SELECT gen_random_uuid(), tenant_id, sha256(('many ' || n)::bytea), '{read}' FROM made, generate_series(1, 100000) AS n
"""
SCANS = """
    SELECT seq_scan AS whole, idx_scan AS by_index FROM pg_stat_xact_user_tables WHERE relname = 'api_key'
"""


class CountedPool(Pool):
    """Counts how often it lends a connection. While it is shut, what a connection was asked is not told."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.lent, self.held, self.most = pool, 0, 0, 0
        self._opened = asyncio.Event()
        self._opened.set()
        self._shut: list[asyncio.Event] = []

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        self.lent += 1
        opened = self._opened
        async with self.pool.connection() as connection:
            yield connection
            self.held += 1
            self.most = max(self.most, self.held)
            await opened.wait()
            self.held -= 1

    def shut(self) -> None:
        self._opened = asyncio.Event()
        self._shut.append(self._opened)

    def open_to_others(self) -> None:
        """Who comes from now on is told at once; the others still wait."""
        self._opened = asyncio.Event()
        self._opened.set()

    def open(self) -> None:
        for opened in [self._opened, *self._shut]:
            opened.set()


@pytest.fixture
def counted(pool: Pool) -> CountedPool:
    return CountedPool(pool)


async def kinds_of(asks: Iterable[Awaitable[object]]) -> set[type]:
    """What comes of them."""
    return {type(answer) for answer in await asyncio.gather(*asks, return_exceptions=True)}


async def test_key_says_whose_it_is_and_what_it_may_do(pool: Pool):
    async with pool.connection() as connection:
        text = await create_key(connection, "acme", [Scope.READ], expires_in_days=1)
        principal = await find_key(connection, text)
        (listed,) = await list_keys(connection)
    assert principal
    assert principal.scopes == {Scope.READ}
    assert (listed.key_id, listed.tenant, listed.scopes) == (principal.key_id, "acme", ["read"])
    assert text.startswith("jn_")
    assert len(text) <= LONGEST_KEY


async def test_table_holds_no_text_of_a_key(pool: Pool):
    key = await Seed(pool).key()
    async with pool.connection() as connection:
        row = await connection.fetchrow("SELECT api_key::text AS everything, hash FROM api_key")
    assert row
    assert key.text not in row["everything"]
    assert row["hash"] == hash_key(key.text)


async def test_keys_of_one_tenant_share_it(pool: Pool):
    seed = Seed(pool)
    first, second, other = await seed.key("a"), await seed.key("a"), await seed.key("b")
    assert first.tenant_id == second.tenant_id != other.tenant_id
    assert first.text != second.text


async def test_unknown_revoked_expired_and_malformed_keys_are_refused_alike(pool: Pool):
    seed = Seed(pool)
    revoked, expired = await seed.key(), await seed.key()
    async with pool.connection() as connection:
        assert await revoke_key(connection, revoked.key_id)
        await connection.execute(EXPIRE, expired.key_id)
    ring = KeyRing(pool)
    for text in (revoked.text, expired.text, "jn_nobody", "", "é", "a" * (LONGEST_KEY + 1), "a\0b"):
        with pytest.raises(NotAuthenticated) as refused:
            await ring.principal(text)
        assert str(refused.value) == "A valid API key or token is needed."


async def test_revoked_key_is_refused_once_it_is_forgotten(pool: Pool):
    key = await Seed(pool).key()
    remembering, forgetful = KeyRing(pool), KeyRing(pool, remember_seconds=0)
    for ring in (remembering, forgetful):
        assert (await ring.principal(key.text)).key_id == key.key_id
        await ring.principal_of(key.key_id)
    async with pool.connection() as connection:
        await revoke_key(connection, key.key_id)
    assert (await remembering.principal(key.text)).key_id == key.key_id
    await remembering.principal_of(key.key_id)
    with pytest.raises(NotAuthenticated):
        await forgetful.principal(key.text)
    with pytest.raises(NotAuthenticated):
        await forgetful.principal_of(key.key_id)


async def test_keys_are_changed_with_an_overlap(pool: Pool):
    old, new = await Seed(pool).key("a"), await Seed(pool).key("a")
    during, after = KeyRing(pool), KeyRing(pool)
    assert (await during.principal(old.text)).tenant_id == (await during.principal(new.text)).tenant_id
    async with pool.connection() as connection:
        await revoke_key(connection, old.key_id)
    assert (await after.principal(new.text)).key_id == new.key_id
    with pytest.raises(NotAuthenticated):
        await after.principal(old.text)


async def test_no_text_of_a_key_is_remembered_or_compared(pool: Pool):
    """By its SHA-256 alone is a key found, here and in the table: how long that takes tells nothing of the key."""
    key, ring = await Seed(pool).key(), KeyRing(pool)
    await ring.principal(key.text)
    remembered = repr(vars(ring))
    assert repr(hash_key(key.text)) in remembered
    assert key.text not in remembered


async def test_hash_that_nobody_shows_any_more_is_dropped_when_the_next_key_is_remembered(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keys, "FORGET_SECONDS", 0.0)
    first, second, ring = await Seed(pool).key(), await Seed(pool).key(), KeyRing(pool, remember_seconds=0)
    for key in (first, second):
        await ring.principal(key.text)
        await ring.principal_of(key.key_id)
    remembered = repr(vars(ring))
    for key in (first, second):
        assert repr(hash_key(key.text)) not in remembered
        assert repr(key.key_id) not in remembered


async def test_many_requests_with_one_key_ask_about_it_once(counted: CountedPool):
    key, ring = await Seed(counted.pool).key(), KeyRing(counted)
    found = await asyncio.gather(*(ring.principal(key.text) for _ in range(100)))
    assert {principal.key_id for principal in found} == {key.key_id}
    assert counted.lent == 1


async def test_many_requests_with_one_key_that_nobody_has_ask_about_it_twice(counted: CountedPool):
    ring = KeyRing(counted)
    asked = (ring.principal("jn_nobody") for _ in range(100))
    assert await kinds_of(asked) == {NotAuthenticated}
    assert counted.lent == 2, "for the first, and for those who asked while it was read"


async def test_key_that_is_made_while_it_is_looked_up_is_found_by_who_asks_then(
    counted: CountedPool,
):
    ring = KeyRing(counted)
    counted.shut()
    before = asyncio.create_task(ring.principal(DEV_API_KEY))
    await eventually(lambda: counted.held == 1, 10, "an answer that says that there is none")
    async with counted.pool.connection() as connection:
        await ensure_dev_key(connection)
    after = asyncio.create_task(ring.principal(DEV_API_KEY))
    await asyncio.sleep(0)
    counted.open()
    with pytest.raises(NotAuthenticated):
        await before
    assert (await after).unmetered


async def test_who_waits_too_long_for_the_answer_about_a_key_is_told_that_the_database_is_busy(
    counted: CountedPool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keys, "TURN_SECONDS", 0.05)
    key, ring = await Seed(counted.pool).key(), KeyRing(counted)
    counted.shut()
    for ask in (ring.principal(key.text), ring.principal(key.text), ring.principal_of(key.key_id)):
        with pytest.raises(DatabaseBusy):
            await ask
    counted.open()

    async def answered() -> bool:
        with suppress(DatabaseBusy):
            return (await ring.principal(key.text)).key_id == key.key_id
        return False

    await eventually(answered, 10, "the answer, which came late and is remembered")
    assert counted.lent == 2, "one by the key, one by its id"


async def test_thousands_of_keys_that_nobody_has_and_a_good_one_among_them_cost_a_few_reads(
    counted: CountedPool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        keys, "TURN_SECONDS", 30.0
    )  # it is the reads that are counted, and not how long they take
    key, ring = await Seed(counted.pool).key(), KeyRing(counted)
    flood = [asyncio.create_task(ring.principal(f"jn_{n}")) for n in range(2_000)]
    good = asyncio.create_task(ring.principal(key.text))
    assert (await good).key_id == key.key_id
    assert counted.lent <= 1 + 2_000 / MOST_KEYS + 1
    assert await kinds_of(flood) == {NotAuthenticated}
    assert counted.lent <= 1 + 2_000 / MOST_KEYS + 1
    assert counted.most == 1


async def test_keys_that_nobody_has_hold_one_connection_and_hold_up_no_key_that_is_known_and_no_token(
    counted: CountedPool,
):
    key, ring = await Seed(counted.pool).key(), KeyRing(counted, remember_seconds=0)
    await ring.principal(key.text)
    counted.shut()
    flood = [asyncio.create_task(ring.principal(f"jn_{n}")) for n in range(20)]
    await eventually(lambda: counted.held, 10, "an answer that does not come")
    counted.open_to_others()
    assert (await ring.principal(key.text)).key_id == key.key_id
    assert (await ring.principal_of(key.key_id)).key_id == key.key_id
    assert counted.lent == 4, (
        "the first, one of those that nobody has, and the known one by its text and its id"
    )
    counted.open()
    assert await kinds_of(flood) == {NotAuthenticated}
    assert counted.lent == 5


async def test_keys_behind_tokens_are_looked_up_together(counted: CountedPool):
    key, ring = await Seed(counted.pool).key(), KeyRing(counted)
    gone = [asyncio.create_task(ring.principal_of(KeyId(uuid4()))) for _ in range(400)]
    found = await asyncio.gather(*(ring.principal_of(key.key_id) for _ in range(100)))
    assert {principal.key_id for principal in found} == {key.key_id}
    assert await kinds_of(gone) == {NotAuthenticated}
    assert counted.lent == 2


async def test_while_the_database_is_away_a_few_tries_tell_it_to_all_and_nothing_is_kept_of_it(
    database_url: str, pool: Pool
):
    key = await Seed(pool).key()
    async with Proxy.before(database_url) as proxy:
        away = await open_pool(proxy.url_through(database_url), "test")
        await proxy.refuse()
        counted = CountedPool(away)
        ring = KeyRing(counted)  # as a process has it that is started before its database
        asked = [ring.principal(f"jn_{n}") for n in range(400)]
        assert await kinds_of([*asked, ring.principal(key.text), ring.principal_of(key.key_id)]) == {
            DatabaseAway
        }
        assert counted.lent == 3
        await proxy.resume()
        assert (await ring.principal(key.text)).key_id == key.key_id
        assert (await ring.principal_of(key.key_id)).key_id == key.key_id
        await away.close()


@pytest.mark.parametrize("plan", ["custom", "generic"])
async def test_look_for_many_keys_goes_along_their_index(pool: Pool, plan: str):
    made_up = [hash_key(str(n)) for n in range(MOST_KEYS)]
    async with pool.transaction() as connection:
        await connection.execute(MANY_KEYS)
        await connection.execute("ANALYZE api_key")
        await connection.execute(f"SET LOCAL plan_cache_mode = force_{plan}_plan")
        before = await connection.fetchrow(SCANS)
        assert not await find_keys(connection, made_up)
        assert not await find_keys_by_id(connection, [KeyId(uuid4()) for _ in made_up])
        after = await connection.fetchrow(SCANS)
    assert before
    assert after
    assert after["whole"] == before["whole"]
    assert after["by_index"] > before["by_index"]


async def test_revoking_twice_keeps_the_first_time_and_an_unknown_id_is_none(pool: Pool):
    key = await Seed(pool).key()
    async with pool.connection() as connection:
        await revoke_key(connection, key.key_id)
        (before,) = await list_keys(connection)
        assert await revoke_key(connection, key.key_id)
        (after,) = await list_keys(connection)
        assert not await revoke_key(connection, key.tenant_id)
    assert before.revoked_at == after.revoked_at is not None


async def test_dev_key_is_made_once_and_refused_outside_dev(pool: Pool):
    async with pool.connection() as connection:
        await refuse_dev_key(connection)
        await ensure_dev_key(connection)
        await ensure_dev_key(connection)
        (listed,) = await list_keys(connection)
        assert (listed.tenant, sorted(listed.scopes)) == ("dev", ["admin", "read", "write"])
        assert await find_key(connection, DEV_API_KEY)
        with pytest.raises(DevKeyOutsideDev):
            await refuse_dev_key(connection)
        await revoke_key(connection, listed.key_id)
        await refuse_dev_key(connection)


async def test_quotas_come_with_the_key_and_are_learnt_when_it_is_looked_at_again(pool: Pool):
    seed = Seed(pool)
    key = await seed.key("a")
    remembering, forgetful = KeyRing(pool), KeyRing(pool, remember_seconds=0)
    assert (await remembering.principal(key.text)).tenant_quotas == {}
    await seed.limit(key, "a", streams=7)
    await seed.limit(key, of_key=True, streams=None)
    assert (await remembering.principal(key.text)).tenant_quotas == {}
    for principal in (await forgetful.principal(key.text), await forgetful.principal_of(key.key_id)):
        assert (principal.tenant_quotas, principal.key_quotas) == ({"streams": 7}, {"streams": None})


async def test_development_key_alone_is_unmetered(pool: Pool):
    async with pool.connection() as connection:
        await ensure_dev_key(connection)
        dev = await find_key(connection, DEV_API_KEY)
        other = await find_key(connection, (await Seed(pool).key("dev")).text)
    assert dev
    assert other
    assert (dev.unmetered, other.unmetered) == (True, False)
