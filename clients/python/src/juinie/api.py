"""Requests to the API that are repeated until they are answered, or until their time is up.

A repeated request carries the same Idempotency-Key, so what it asks for is done once, however often it arrives.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import httpx

from juinie.errors import NoAnswer, Refused, refusal

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 3.0
PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses that may be others when the request is repeated."""
_TOO_MANY = 429
"""The one passing answer that says that nothing was done; the others may come from a proxy, or after the commit."""


@dataclass(frozen=True)
class Api:
    """One or more addresses of one deployment's API. A repetition goes to the next address."""

    http: httpx.AsyncClient
    urls: Sequence[str]
    retry_seconds: float = 60.0
    repeats: Counter[str] = field(default_factory=Counter[str])
    """How often a request was repeated, by the reason."""
    _turn: "itertools.count[int]" = field(default_factory=itertools.count)

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_seconds: float | None = None,
        timeout_seconds: float | None = None,
    ) -> httpx.Response:
        """The answer, if it is a good one.

        Raises:
            Refused: the answer is a refusal that will not pass, or none of Juinie's (`Unreadable`).
            NoAnswer: none came within `retry_seconds`; what was asked may have been done.
        """
        limit = self.retry_seconds if retry_seconds is None else retry_seconds
        deadline = time.monotonic() + limit
        sent_headers = {**(headers or {}), **({"Content-Type": "application/json"} if content else {})}
        timeout = timeout_seconds or httpx.USE_CLIENT_DEFAULT
        doubtful = False
        for attempt in itertools.count():
            url = self.urls[next(self._turn) % len(self.urls)]
            try:
                answer = await self.http.request(
                    method, f"{url}{path}", content=content, json=json, params=params, headers=sent_headers,
                    timeout=timeout,
                )  # fmt: skip
            except (httpx.TransportError, httpx.DecodingError) as error:  # the answer is lost with its body
                why, wait, doubtful = type(error).__name__, _wait(attempt), True
            else:
                if answer.status_code not in PASSING:
                    return _good(answer, doubtful)
                doubtful = doubtful or answer.status_code != _TOO_MANY
                why, wait = f"status {answer.status_code}", max(_wait(attempt), _asked_for(answer))
            if time.monotonic() + wait > deadline:
                raise NoAnswer(why)
            self.repeats[why] += 1
            await asyncio.sleep(wait)
        raise AssertionError  # the loop above has no end of its own


def _wait(attempt: int) -> float:
    """Longer each time, and spread, so that not all come back at once."""
    longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** min(attempt, 8))
    return longest * random.uniform(0.5, 1)  # noqa: S311 - nothing secret about a pause


def _asked_for(answer: httpx.Response) -> float:
    """Retry-After, in seconds."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 30.0) if text.isdecimal() else 0.0


def _good(answer: httpx.Response, doubtful: bool) -> httpx.Response:
    if answer.is_success:
        return answer
    raise refused(answer, doubtful)


def refused(answer: httpx.Response, after_no_answer: bool = False) -> Refused:
    """The error that an answer's problem document stands for."""
    try:
        problem = answer.json()
    except (ValueError, httpx.ResponseNotRead):
        problem = None
    known = cast("dict[str, Any]", problem) if isinstance(problem, dict) else {}
    return refusal(answer.status_code, known, after_no_answer, _asked_for(answer))
