"""Who is let in, and who holds up whom."""

import asyncio
from typing import Any

import pytest

from juinie_shared.contracts.stream_tokens import StreamTokenSigner
from juinie_shared.db.keys import Principal
from juinie_shared.domain.errors import NotAuthenticated
from juinie_shared.domain.ids import KeyId, RunId, TenantId, new_uuid7
from juinie_shared.domain.runs import RunStatus, Scope
from juinie_stream_gateway.edges.admit import LET_IN_AT_ONCE, Gate
from juinie_stream_gateway.store import RunRow

KNOWN = Principal(TenantId(new_uuid7()), KeyId(new_uuid7()), frozenset({Scope.READ}))


class Keys:
    """One key is known; about all others the database is asked, and takes its time."""

    def __init__(self) -> None:
        self.asked, self.answered = 0, asyncio.Event()

    async def principal(self, key: str) -> Principal:
        if key == "jn_known":
            return KNOWN
        self.asked += 1
        await self.answered.wait()
        raise NotAuthenticated


def asking(key: str) -> dict[str, Any]:
    return {
        "headers": [(b"x-api-key", key.encode()), (b"accept", b"*/*")],
        "query_string": b"",
        "method": "GET",
    }


async def test_made_up_keys_hold_up_nobody_who_is_known(signing_keys: str):
    async def find_run(_run_id: RunId, _tenant_id: TenantId) -> RunRow:
        return RunRow(1, RunStatus.RUNNING)  # pyright: ignore[reportArgumentType] - a seq

    keys: Any = Keys()
    name, _, secret = signing_keys.partition("=")
    gate = Gate(keys, StreamTokenSigner({name: secret}), find_run, lambda: True)
    run_text = str(new_uuid7())
    flood = [
        asyncio.create_task(gate.admit(asking(f"jn_{number}"), run_text))
        for number in range(5 * LET_IN_AT_ONCE)
    ]
    await asyncio.sleep(0)
    admitted = await asyncio.wait_for(gate.admit(asking("jn_known"), run_text), 10)
    assert admitted.caller.principal is KNOWN
    assert keys.asked == len(flood)
    keys.answered.set()
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert {type(answer) for answer in answers} == {NotAuthenticated}
    assert await gate.admit(asking("jn_known"), run_text)


async def test_who_is_refused_leaves_its_turn(signing_keys: str):
    async def find_run(_run_id: RunId, _tenant_id: TenantId) -> None:
        return None

    keys: Any = Keys()
    name, _, secret = signing_keys.partition("=")
    gate = Gate(keys, StreamTokenSigner({name: secret}), find_run, lambda: True)
    for _ in range(2 * LET_IN_AT_ONCE):
        with pytest.raises(Exception, match="No such run"):
            await asyncio.wait_for(gate.admit(asking("jn_known"), str(new_uuid7())), 10)
