"""One request to the API, in the order in which it may be refused: 401, 429, then what is wrong with
it, then 403, then 404."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError
from starlette.requests import ClientDisconnect, Request

from juinie_api.core import patience
from juinie_api.core.append import Appender, Once
from juinie_api.core.create import KeyLimit
from juinie_api.core.desk import ClaimDesk
from juinie_api.core.lanes import RunLanes
from juinie_api.core.places import WaitingPlaces
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.core.waker import Waker
from juinie_api.core.windows import Use, Windows
from juinie_api.edges.admission import Admitted
from juinie_api.edges.body import parse_body, read_body, refuse_body
from juinie_api.edges.faults import faults_of
from juinie_api.edges.limits import Limits
from juinie_api.edges.problems import Refused
from juinie_api.edges.schemas import Body
from juinie_api.edges.unanswered import Unanswered
from juinie_api.telemetry import Metrics
from juinie_shared.contracts.stream_tokens import StreamTokenSigner
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import (
    DatabaseBusy,
    Draining,
    LimitReached,
    NotAuthenticated,
    Permanent,
    RunLocked,
    RunNotFound,
    ScopeMissing,
    Transient,
)
from juinie_shared.domain.ids import RunId, parse_run_id
from juinie_shared.domain.quotas import Quota, limit_of
from juinie_shared.domain.runs import Scope
from juinie_shared.runtime.accept import accepts
from juinie_shared.runtime.problems import Fault

IDEMPOTENCY_KEY = "Idempotency-Key"
LEASE = "Juinie-Lease"
LOOK_AGAIN_SECONDS = 25.0
"""How long a request waits without a look at its key. The key ring's 30 s come before: together less than the 60 s after
which no revoked key is good for anything."""
AT_ONCE_SECONDS = 1.0
"""A body that is there so soon was asked for by a key that was looked at just before."""
NOTHING_SECONDS = 0.01
"""A body that was there already takes less."""
_NO_LEASE = UUID(int=0)
_NOTHING_WRITTEN = (Permanent, LimitReached, RunLocked, DatabaseBusy)
"""Refusals. Of all else nobody knows, as of an answer that did not come: it may have been written."""
_ONCE_ONLY = {
    name.lower().encode(): name
    for name in (IDEMPOTENCY_KEY, LEASE, "Last-Event-ID", "Content-Type", "Content-Encoding")
}
_WITHOUT_BODY = frozenset({"GET", "DELETE"})


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with. Built by `app.py`, the same for every request."""

    pools: TenantPools
    windows: Windows
    waiting: WaitingPlaces
    unanswered: Unanswered
    lanes: RunLanes
    appender: Appender
    waker: Waker
    desk: ClaimDesk
    signer: StreamTokenSigner
    wake_publisher: Callable[[], None]
    wake_workers: Callable[[], None]
    metrics: Metrics
    limits: Limits
    stream_url: str
    draining: asyncio.Event


def _spelled(form: re.Pattern[str], what: str) -> BeforeValidator:
    """As people write it. Python reads `1.0`, `1_000` and digits of every script as the same number."""

    def check(value: object) -> object:
        if isinstance(value, str) and not form.fullmatch(value):
            raise PydanticCustomError("bad_value", "Is {what}.", {"what": what})
        return value

    return BeforeValidator(check)


INTEGER = _spelled(re.compile(r"-?[0-9]{1,18}"), "an integer")
DECIMAL = _spelled(re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?"), "a decimal number")
"""Behind the `Field` of every query parameter that is a number: `Annotated[int, Field(ge=1), INTEGER]`."""


class Query(BaseModel):
    """A request's query parameters: all of them are named."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


@dataclass(slots=True)
class Charge:
    """What a request was charged. `for_nothing`: it wrote nothing, all of it was there already."""

    for_nothing: bool = False


class Call:
    """An authenticated request, its parts read on demand."""

    def __init__(self, request: Request, services: Services, admitted: Admitted) -> None:
        self.services = services
        self.principal = admitted.principal
        self.pool: Pool = services.pools.of(admitted.principal.tenant_id)
        self._head = admitted.head
        self._policies = admitted.policies
        self._admitted = admitted
        self._request = request

    def query[Q: Query](self, cls: type[Q]) -> Q:
        """The query parameters.

        Raises:
            Refused: 400 where one is unknown or repeated, else 422 where the values have faults; with all faults of both kinds.
        """
        pairs = self._request.query_params.multi_items()
        known = {name: value for name, value in pairs if name in cls.model_fields}
        names = ", ".join(cls.model_fields) or "none"
        misplaced = list(_misplaced([name for name, _ in pairs], cls.model_fields, names))
        try:
            query, faults = cls.model_validate(known, context=self.services.limits), list[Fault]()
        except ValidationError as error:
            query = None
            faults = [Fault(f.pointer.removeprefix("/"), f.code, f.detail) for f in faults_of(error)]
        if misplaced:
            raise Refused(
                400,
                "bad_query",
                f"Query parameters of this route, each at most once: {names}.",
                [*misplaced, *faults],
            )
        if query is None:
            raise Refused(422, "invalid", "The query parameters have faults.", faults)
        return query

    async def body[B: Body](self, cls: type[B], *, optional: bool = False) -> tuple[B, bytes]:
        """The body's fields and its canonical bytes. `optional`: no body at all is the empty object.

        No route that takes a body has query parameters: any is refused, as one that is unknown.
        """
        raw = await self.raw_body()
        return parse_body(cls, b"{}" if optional and not raw else raw, self.services.limits)

    async def raw_body(self) -> bytes:
        """The body as it came, decompressed. It counts as held until the request is answered.

        Raises:
            ServerBusy: too much is held already.
        """
        if self._request.scope["query_string"]:
            self.query(Query)
        began = time.monotonic()
        raw = await read_body(
            self._request.receive, self._head, self.services.limits.request_bytes, self._hold
        )
        waited = time.monotonic() - began
        if waited >= AT_ONCE_SECONDS:
            patience.begin_again()
            await self.look_again()  # a body may take minutes to arrive
        elif waited > NOTHING_SECONDS:
            patience.excuse(waited)
        return raw

    def _hold(self, size: int) -> None:
        self.services.unanswered.take(self.principal.tenant_id, size)
        self._admitted.body_bytes += size

    def let_body_go(self) -> None:
        """For who waits: little is left of its body, and that counts as held no more."""
        self.services.unanswered.give_back(self.principal.tenant_id, self._admitted.body_bytes)
        self._admitted.body_bytes = 0

    def charged(self, events: int, size: int) -> AbstractAsyncContextManager[Charge]:
        """Around what writes the body: so many events, so many bytes. Given back where nothing of it was written.

        Raises:
            QuotaExceeded: one of the limits of this tenant or key is used up.
        """
        return self._charged(events, size) if self._policies else nullcontext(Charge())

    @asynccontextmanager
    async def _charged(self, events: int, size: int) -> AsyncGenerator[Charge]:
        charge, costs, windows = Charge(), {Use.EVENTS: events, Use.BYTES: size}, self.services.windows
        window = await windows.charge(self._policies, costs)
        try:
            yield charge
        except _NOTHING_WRITTEN:
            charge.for_nothing = True
            raise
        finally:
            if charge.for_nothing:
                await windows.give_back(self._policies, costs, window)

    def waiting(self, seconds: float) -> AbstractContextManager[None]:
        """Around a wait of at most so long: it takes one of the tenant's places.

        Raises:
            TooManyWaiting: all of them are taken.
        """
        if seconds <= 0:
            return nullcontext()
        limit = limit_of(
            self.principal.tenant_quotas, Quota.WAITING_REQUESTS, self.services.limits.waiting_requests
        )
        return self.services.waiting.taken(self.principal.tenant_id, limit)

    def active_runs(self) -> int | None:
        """How many unfinished runs the tenant may have; None: any number."""
        if self.principal.unmetered:
            return None
        return limit_of(self.principal.tenant_quotas, Quota.ACTIVE_RUNS, self.services.limits.active_runs)

    def active_runs_of_key(self) -> KeyLimit | None:
        """How many unfinished runs the key may have; None: any number."""
        holder = self.principal
        limit = limit_of(holder.key_quotas, Quota.ACTIVE_RUNS, self.services.limits.active_runs_of_key)
        return None if holder.unmetered or limit is None else KeyLimit(holder.key_id, limit)

    def events_per_run(self) -> int | None:
        """How many events a run of the tenant may have; None: any number."""
        if self.principal.unmetered:
            return None
        return limit_of(
            self.principal.tenant_quotas, Quota.EVENTS_PER_RUN, self.services.limits.events_per_run
        )

    def idempotency_key(self) -> str | None:
        key = self._head.get(b"idempotency-key")
        if key is None or (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
            return key
        raise Refused(400, "bad_idempotency_key", "Idempotency-Key has 1 to 255 printable ASCII characters.")

    def lease(self) -> UUID | None:
        """The lease token that the request shows. Text that is none stands for one that no run ever has."""
        text = self._head.get(b"juinie-lease")
        return None if text is None else parse_run_id(text) or _NO_LEASE

    def required_lease(self) -> UUID:
        token = self.lease()
        if token is None:
            raise Refused(400, "lease_missing", f"{LEASE} has the lease token of the claim.")
        return token

    async def look_again(self) -> None:
        """Whether the key is still good, for what goes on for a while.

        Raises:
            NotAuthenticated: it was revoked or has expired since.
            Transient: the database cannot be asked.
        """
        await self._admitted.ask_again()

    async def in_parts[T](
        self, seconds: float, wait: Callable[[float], Awaitable[T]], is_over: Callable[[T], bool]
    ) -> T:
        """What `wait` gives, asked to wait for `seconds` in all. In between it is looked whether the key is still good.

        Raises:
            NotAuthenticated: it is not.
        """
        until = time.monotonic() + seconds
        while True:
            remaining = until - time.monotonic()
            found = await wait(min(max(0.0, remaining), LOOK_AGAIN_SECONDS))
            if is_over(found) or remaining <= LOOK_AGAIN_SECONDS or self.services.draining.is_set():
                return found
            await self.look_again()

    async def gone(self) -> bool:
        """Whether nobody may have the answer, or would read it: the client has closed the connection, or its key is
        good no more.
        """
        try:
            await self.look_again()
        except NotAuthenticated:
            return True
        except Transient:  # nobody knows; who waits is looked at again
            pass
        return await self._request.is_disconnected()

    async def stay(self) -> None:
        """
        Raises:
            ClientDisconnect: nobody would read the answer.
            NotAuthenticated: the key was revoked or has expired since.
            Draining: this server is stopping.
        """
        if self.services.draining.is_set():
            raise Draining
        if await self._request.is_disconnected():
            raise ClientDisconnect
        await self.look_again()

    def header(self, name: str) -> str | None:
        return self._head.get(name.lower().encode())

    def path(self, name: str) -> str:
        """What stands in the path."""
        text: str = self._request.path_params[name]
        return text

    def require(self, scope: Scope) -> None:
        if scope not in self.principal.scopes:
            raise ScopeMissing(scope.value)

    def run_id(self) -> RunId:
        """The run that the path names. Text that is no id names no run."""
        run_id = parse_run_id(self._request.path_params["run_id"])
        if run_id is None:
            raise RunNotFound
        return run_id


def _misplaced(given: Sequence[str], fields: Container[str], names: str) -> Iterator[Fault]:
    """Query parameters that a route does not have, which are not named, and those that are there twice."""
    if any(name not in fields for name in given):
        yield Fault("query", "unknown_parameter", f"This route takes: {names}.")
    for name, times in Counter(given).items():
        if name in fields and times > 1:
            yield Fault(name, "duplicate", "Send this query parameter once.")


def fingerprint(route: str, canonical: bytes) -> bytes:
    """What two requests with one Idempotency-Key must have in common."""
    return sha256(b"%b\n%b" % (route.encode(), canonical)).digest()


def once(key: str | None, route: str, canonical: bytes) -> Once | None:
    return None if key is None else Once(key, route, fingerprint(route, canonical))


async def authenticated(request: Request) -> Call:
    """The request of a caller who is known."""
    services: Services = request.app.state.services
    state = request.scope["state"]
    admitted: Admitted | Exception = state["admitted"]  # by edges/admission.py, in front of all routes
    if isinstance(admitted, Exception):
        raise admitted
    state["tenant_id"] = str(admitted.principal.tenant_id)
    head = admitted.head
    if head.has_repeats:
        for name, spoken in _ONCE_ONLY.items():
            if head.count(name) > 1:
                raise Refused(400, "repeated_header", f"{spoken} may be given once.")
    if b"accept" in head and not accepts("application/json", head.all(b"accept")):
        raise Refused(406, "not_acceptable", "Answers are application/json.")
    if request.method in _WITHOUT_BODY:
        await refuse_body(request)
    return Call(request, services, admitted)


type Authenticated = Annotated[Call, Depends(authenticated)]
