"""Every answer of the API is looked at as it comes, also those that the client repeats without a word.

A client may repeat a 500, and must: something went wrong that will pass. A deployment that is tortured may not give one. It says 503,
and when to come again, within five seconds.
"""

import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx

from juinie.torture.schedule import Fault
from juinie.torture.stalls import Stalls

LATE_SECONDS = 5.0
"""As promised. What this process itself stood still for is taken off."""
_BROKEN, _UNAVAILABLE = 500, 503


@dataclass
class Answers:
    """What was wrong with answers, counted. One is late after `late_seconds`; None: as promised. `slowest_seconds` is that of those that nothing held up, our own stalls taken off."""

    wrong: Counter[str] = field(default_factory=Counter[str])
    slowest_seconds: float = 0.0
    late_seconds: float | None = None
    _holding: int = 0
    _held_until: float = 0.0
    _stalls: Stalls = field(default_factory=Stalls)

    def transport(self) -> httpx.AsyncBaseTransport:
        """For the client whose answers are to be looked at."""
        return _Judged(self)

    def excused_by(self, fault: Fault) -> Fault:
        """The same fault; what begins while it lasts may be late, where it is one that holds answers up."""
        if not fault.holds_answers:
            return fault

        async def inject() -> None:
            self._holding += 1
            await fault.inject()

        async def heal() -> None:
            await fault.heal()
            self._holding -= 1
            self._held_until = time.monotonic()

        return replace(fault, inject=inject, heal=heal)

    @asynccontextmanager
    async def judged(self, request: httpx.Request) -> AsyncGenerator[None]:
        """Around one request: did its answer, or the want of one, take too long?"""
        began = time.monotonic()
        with self._stalls.watched():
            try:
                yield
            except httpx.ReadTimeout:
                self._time(request, began)
                raise
            self._time(request, began)

    def held_up_since(self, began: float) -> bool:
        """Whether a fault that holds answers up has been there at any time since then, of `time.monotonic()`."""
        return bool(self._holding) or began < self._held_until

    def judge(self, request: httpx.Request, answer: httpx.Response) -> None:
        """Is it one that may be given?"""
        if answer.status_code == _BROKEN:
            self.wrong[f"{_what(request)}: 500"] += 1
        elif answer.status_code == _UNAVAILABLE and "Retry-After" not in answer.headers:
            self.wrong[f"{_what(request)}: 503 without Retry-After"] += 1

    def _time(self, request: httpx.Request, began: float) -> None:
        if self.held_up_since(began) or _waits_on_purpose(request):
            return
        took = time.monotonic() - began - self._stalls.seconds_since(began) - _asked_to_wait(request)
        self.slowest_seconds = max(self.slowest_seconds, took)
        if took > (late := self.late_seconds or LATE_SECONDS):
            self.wrong[f"{_what(request)}: no answer within {late:g} s"] += 1


class _Judged(httpx.AsyncHTTPTransport):
    def __init__(self, answers: Answers) -> None:
        super().__init__(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100), trust_env=False
        )
        self._answers = answers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async with self._answers.judged(request):
            answer = await super().handle_async_request(request)
        self._answers.judge(request, answer)
        return answer


def _what(request: httpx.Request) -> str:
    """The route, without the run."""
    *_, last = request.url.path.split("/")
    return f"{request.method} {'a run' if len(last) == len('00000000-0000-0000-0000-000000000000') else last}"


def _waits_on_purpose(request: httpx.Request) -> bool:
    """A claim waits for a run; a stream is judged by its events."""
    return request.url.path.endswith(("/v1/claims", "/stream"))


def _asked_to_wait(request: httpx.Request) -> float:
    """How many seconds an answer may take besides, since a poll asked for it. One that comes sooner has no time to lose."""
    asked = request.url.params
    return float(asked.get("timeout_seconds") or asked.get("wait_seconds") or 0)
