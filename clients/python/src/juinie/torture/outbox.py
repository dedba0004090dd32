"""The outbox, as its administrator sees it: is what was written also published?"""

import asyncio
import time
from typing import Any

import httpx

from juinie.client import Client

_PATH = "/v1/admin/outbox"
_LOOK_EVERY_SECONDS = 0.2
_TRY_SECONDS = 5.0


class Outbox:
    """Of a whole deployment. A key without the scope `admin` may not look."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def may_look(self) -> bool:
        """The key is shown it. Asks until there is an answer."""
        while (answer := await self._look()) is None or answer.is_server_error:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return answer.is_success

    async def until_published(self, timeout_seconds: float) -> float | None:
        """Seconds from now until all that was written before now is published. None: not within the time."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < timeout_seconds:
            answer = await self._look()
            if answer is not None and answer.is_success:
                depth: dict[str, Any] = answer.json()
                if not depth["pending"] or depth["oldest_age_seconds"] < passed:
                    return passed
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return None

    async def _look(self) -> httpx.Response | None:
        """The first answer that any address gives."""
        for url in self._client.api.urls:
            try:
                return await self._client.http.get(f"{url}{_PATH}", timeout=_TRY_SECONDS)
            except httpx.TransportError:
                continue
        return None
