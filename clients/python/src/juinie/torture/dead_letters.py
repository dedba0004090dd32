"""Events that a publisher set aside during a torture: watchers have them, consumers on Kafka do not. Needs a key with the scope `admin`."""

from typing import Any, cast

from juinie.answers import read_object
from juinie.client import Client

_PATH = "/v1/admin/outbox/dead-letters"
_PAGE = 200


class DeadLetters:
    """Of the key's tenant. Their ids rise: a new one is above all that were there."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._highest = 0

    async def begin(self) -> None:
        """Remember which are there. Raises JuinieError."""
        self._highest = max((letter["id"] for letter in await self._newest()), default=0)

    async def since(self) -> list[dict[str, Any]]:
        """Those that came since, the newest first, 200 at most. Raises JuinieError."""
        return [letter for letter in await self._newest() if letter["id"] > self._highest]

    async def _newest(self) -> list[dict[str, Any]]:
        answer = await self._client.api.send("GET", _PATH, params={"limit": _PAGE})
        return cast("list[dict[str, Any]]", read_object(answer, {"items": list})["items"])
