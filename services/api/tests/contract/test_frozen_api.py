"""An api that stands still in mid-transaction, as Postgres sees it: a session that is open, holds a run, and is silent."""

import asyncio
from typing import Any

from pydantic import SecretStr

from juinie_api.app import serve
from juinie_api.settings import Settings
from juinie_testkit.proxy import Proxy
from juinie_testkit.running import running
from juinie_testkit.waits import eventually

HOLDING = """
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'juinie-api' AND state = 'idle in transaction'
"""


async def test_a_run_that_a_frozen_api_holds_is_free_again_when_its_session_has_idled_for_too_long(
    api: Any, settings: Settings, database_url: str
):
    """It has locked the run to cancel it, and what it says next never reaches Postgres; nor does that it hangs up."""
    held, other = (await api.create())["run_id"], (await api.create())["run_id"]
    await api.append(held)
    async with Proxy.before(database_url) as line:
        through = settings.model_copy(update={"database_url": SecretStr(line.url_through(database_url))})
        async with running(serve, through) as frozen, api.client_of_service(frozen) as client:
            line.hang_at(b"INSERT INTO run_event")
            cancelling = asyncio.create_task(client.post(f"/v1/runs/{held}/cancel"))
            await eventually(lambda: line.hangs, 30, "it has locked the run")
            assert len(await api.rows(HOLDING)) == 1
            assert (await api.append(other)).status_code == 201

            refused = list[str]()

            async def nobody_holds() -> bool:
                return not await api.rows(HOLDING)

            async def goes_on() -> bool:
                answer = await api.append(held)
                if answer.status_code == 503:
                    refused.append(answer.json()["code"])
                return answer.status_code == 201

            await eventually(goes_on, 30, "an append to the run that it held")
            assert set(refused) <= {"run_locked"}
            await eventually(
                nobody_holds, 30, "its session is gone, which is seen a little after its locks are"
            )
            assert (await cancelling).status_code == 503
    types = [event["type"] for event in await api.events(held)]
    assert types == ["run.created", "run.started", "x", "x"], "nothing of the cancel was left"
