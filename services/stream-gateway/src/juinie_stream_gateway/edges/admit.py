"""Who may watch what, from where: a request becomes an admitted stream, or the error that says why not."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from juinie_shared.contracts.stream_tokens import LEEWAY_SECONDS, StreamTokenSigner
from juinie_shared.db.keys import Principal
from juinie_shared.domain.errors import DatabaseAway, RunNotFound, ScopeMissing
from juinie_shared.domain.ids import RunId, TenantId, parse_run_id
from juinie_shared.domain.runs import Scope
from juinie_shared.runtime.keys import KeyRing
from juinie_stream_gateway.core.start import Start, start_of
from juinie_stream_gateway.core.turnstile import Turnstile
from juinie_stream_gateway.edges.request import Credential, StreamRequest
from juinie_stream_gateway.store import RunRow

LET_IN_AT_ONCE = 64
LET_IN_SECONDS = 10.0
"""How long one may wait for its turn. It gets this long only when the database hardly answers."""

type FindRun = Callable[[RunId, TenantId], Awaitable[RunRow | None]]


class Caller(msgspec.Struct, frozen=True):
    """Who asks. A token speaks for one run, until a moment; an API key for what its tenant owns."""

    principal: Principal
    may_read: bool = True
    only_run: RunId | None = None
    expires_in_seconds: float | None = None


class Admitted(msgspec.Struct, frozen=True):
    """`start` is None when there is nothing to stream, now and for ever."""

    run_id: RunId
    caller: Caller
    start: Start | None
    types: frozenset[str] | None


class Gate:
    """Order of refusals: who are you, what do you ask, may you, is it there.

    A few at a time are let in. Who shows a key has been found by then: thousands of made-up ones wait for the database among themselves, and
    hold up nobody who is known.
    """

    def __init__(
        self,
        keys: KeyRing,
        tokens: StreamTokenSigner,
        find_run: FindRun,
        database_was_ready: Callable[[], bool],
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._find_run = find_run
        self._database_was_ready = database_was_ready
        self._turnstile = Turnstile(LET_IN_AT_ONCE, LET_IN_SECONDS)

    async def admit(self, scope: dict[str, Any], run_text: str) -> Admitted:
        """The stream that this request is for.

        Raises:
            Permanent: it will never be given as asked.
            Transient: the database cannot be asked now.
        """
        request = StreamRequest(scope)
        credential = request.credential()
        if not self._database_was_ready():
            raise DatabaseAway
        holder = None if credential.is_token else await self._holder(credential)
        await self._turnstile.enter()
        try:
            caller = holder or await self._bearer(credential)
            ask = request.ask()
            if not caller.may_read:
                raise ScopeMissing(Scope.READ)
            run_id, row = await self._run(run_text, caller)
        finally:
            self._turnstile.leave()
        return Admitted(run_id, caller, start_of(ask.position, row), ask.types)

    async def _holder(self, credential: Credential) -> Caller:
        principal = await self._keys.principal(credential.text)
        return Caller(principal, Scope.READ in principal.scopes)

    async def _bearer(self, credential: Credential) -> Caller:
        token = self._tokens.verify(credential.text)
        principal = await self._keys.principal_of(token.key_id)
        remaining = token.expires_at.timestamp() + LEEWAY_SECONDS - time.time()
        return Caller(principal, only_run=token.run_id, expires_in_seconds=max(0.0, remaining))

    async def _run(self, run_text: str, caller: Caller) -> tuple[RunId, RunRow]:
        run_id = parse_run_id(run_text)
        if run_id is None or caller.only_run not in {None, run_id}:
            raise RunNotFound
        row = await self._find_run(run_id, caller.principal.tenant_id)
        if row is None:
            raise RunNotFound
        return run_id, row
