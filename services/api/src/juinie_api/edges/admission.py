"""In front of the API: who calls, and whether they may call just now. A refusal for the rate is cheap.

It is decided here, before routing, tracing and the body, because a client that is over its limit may send any number of
requests: each must cost a small part of what the requests of others cost. Order of refusals: 401 first (left to the
route, which tells it), then 429, then all others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from starlette.datastructures import Headers

from juinie_api.core import patience
from juinie_api.core.windows import Policy, Use, Windows
from juinie_api.edges.auth import api_key
from juinie_api.edges.head import Head
from juinie_api.edges.rate_headers import rate_headers
from juinie_api.edges.unanswered import Unanswered
from juinie_shared.db.keys import Principal
from juinie_shared.domain.errors import LimitReached
from juinie_shared.runtime.keys import KeyRing
from juinie_shared.runtime.probes import AsgiApp
from juinie_shared.runtime.problems import Problem, problem_of

HOLD_SECONDS = 0.25
MOST_HELD = 500
"""Refusals that wait at once, at most: each is a connection that does nothing."""

_ALWAYS = [(b"referrer-policy", b"no-referrer")]


class Admitted:
    """What the route finds in the request's state: who calls, and which limits hold for them; and the request's headers.

    `ask_again` asks the key ring once more, for requests that go on for a while. Raises as it does. `body_bytes`: what its body has taken
    of what may be unanswered at once.
    """

    def __init__(
        self,
        principal: Principal,
        policies: Sequence[Policy],
        ask_again: Callable[[], Awaitable[object]],
        head: Head,
    ) -> None:
        self.principal, self.policies, self.ask_again, self.head = principal, policies, ask_again, head
        self.body_bytes = 0


class Admission:
    """ASGI: finds the caller of a `/v1` request, charges the request, and tells what is left on its answer; then its body is held no more."""

    def __init__(
        self,
        app: AsgiApp,
        keys: KeyRing,
        windows: Windows,
        unanswered: Unanswered,
        refused: Callable[[Principal, LimitReached], None],
    ) -> None:
        self._app, self._keys, self._windows, self._refused = app, keys, windows, refused
        self._unanswered = unanswered
        self._held = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        patience.begin()
        head = Head(scope["headers"])
        try:
            key = api_key(head)
            principal = await self._keys.principal(key)
        except Exception as error:  # noqa: BLE001 - raised again by the route, where each has its answer
            scope.setdefault("state", {})["admitted"] = error
            await self._app(scope, receive, send)
            return
        policies = self._windows.policies(principal)
        admitted = Admitted(principal, policies, partial(self._keys.principal, key), head)
        scope.setdefault("state", {})["admitted"] = admitted
        try:
            if policies:
                await self._metered(principal, policies, scope, receive, send)
            else:
                await self._app(scope, receive, send)
        finally:
            if admitted.body_bytes:
                self._unanswered.give_back(principal.tenant_id, admitted.body_bytes)

    async def _metered(
        self, principal: Principal, policies: Sequence[Policy], scope: Any, receive: Any, send: Any
    ) -> None:
        async def send_with_rates(message: Any) -> None:
            if message["type"] == "http.response.start":
                rates = rate_headers(await self._windows.standing(policies))
                message["headers"] = [*message.get("headers", ()), *rates]
            await send(message)

        try:
            await self._windows.charge(policies, {Use.REQUESTS: 1})
        except LimitReached as error:
            self._refused(principal, error)
            await self._hold()
            await _refuse(problem_of(error, Headers(scope=scope).get("traceparent")), send_with_rates)
        else:
            await self._app(scope, receive, send_with_rates)

    async def _hold(self) -> None:
        """Let the refusal wait a little: a client that asks again at once, in a loop, is slowed to what is harmless."""
        if self._held >= MOST_HELD:
            return
        self._held += 1
        try:
            await asyncio.sleep(HOLD_SECONDS)
        finally:
            self._held -= 1


async def _refuse(refusal: Problem, send: Any) -> None:
    headers = [*refusal.raw_headers(), *_ALWAYS]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body})
