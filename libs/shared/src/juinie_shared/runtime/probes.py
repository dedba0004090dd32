"""`/livez`, `/readyz` and `/metrics`, the same for every service, as small ASGI applications.

Liveness asks nothing of Postgres or Kafka: restarting a service does not mend them. Readiness does.

Where a service has several processes, each answers for all.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily

from juinie_shared.runtime.metric_families import (
    LABEL,
    MergedRegistry,
    decode_families,
    encode_families,
    families_of,
)
from juinie_shared.runtime.process_telemetry import PROCESS_ANSWERS
from juinie_shared.runtime.sibling import Sibling
from juinie_shared.runtime.sibling_answers import No, SiblingAnswers

type AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
type Readiness = Callable[[], Awaitable[list[str]]]
"""What this service still waits for, each in one line without secrets; empty = ready."""

_MISSING = {
    No.ABSENT: "It is not there; it is started.",
    No.SILENT: "It does not answer.",
}


class Probes:
    """The three applications, by path, in `apps`. `run()` in a task: only those who have siblings need it."""

    def __init__(
        self, readiness: Readiness, registry: CollectorRegistry, sibling: Sibling | None = None
    ) -> None:
        self._process: _Alone = (
            _Alone(readiness, registry) if sibling is None else _OneOfMany(readiness, registry, sibling)
        )
        self.apps: dict[str, AsgiApp] = {
            "/livez": self._live,
            "/readyz": self._ready,
            "/metrics": self._metrics,
        }

    async def run(self) -> None:
        """Answer siblings, for ever; without any there is nothing to do."""
        await self._process.run()

    async def _live(self, _scope: Any, _receive: Any, send: Any) -> None:
        silent = await self._process.silent()
        body = msgspec.json.encode({"status": "hangs", "processes": silent} if silent else {"status": "ok"})
        await _answer(send, 503 if silent else 200, b"application/json", body)

    async def _ready(self, _scope: Any, _receive: Any, send: Any) -> None:
        missing = await self._process.missing()
        body = msgspec.json.encode({"ready": not missing, "waiting_for": missing})
        await _answer(send, 503 if missing else 200, b"application/json", body)

    async def _metrics(self, scope: Any, _receive: Any, send: Any) -> None:
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        encode, content_type = choose_encoder(accept)
        await _answer(send, 200, content_type.encode(), encode(await self._process.metrics()))


class _Alone:
    """What the only process of a service answers."""

    def __init__(self, readiness: Readiness, registry: CollectorRegistry) -> None:
        self._readiness, self._registry = readiness, registry

    async def run(self) -> None: ...

    async def silent(self) -> list[int]:
        """Processes that hang."""
        return []

    async def missing(self) -> list[str]:
        return await self._readiness()

    async def metrics(self) -> CollectorRegistry:
        return self._registry


class _OneOfMany(_Alone):
    """What one of several processes answers for all."""

    def __init__(self, readiness: Readiness, registry: CollectorRegistry, sibling: Sibling) -> None:
        super().__init__(readiness, registry)
        self._sibling = sibling
        self._others = SiblingAnswers(
            sibling, {"live": self._say_live, "ready": self._say_ready, "metrics": self._say_metrics}
        )

    async def run(self) -> None:
        await self._others.run()

    async def silent(self) -> list[int]:
        """One that is not there is left out: it is replaced, and restarting the whole would not bring it sooner."""
        answers = await self._others.ask("live", bytes)
        return [index for index, answer in answers.items() if answer is No.SILENT]

    async def missing(self) -> list[str]:
        own = await self._readiness()
        answers = await self._others.ask("ready", _decode_lines)
        missing = {
            self._sibling.index: own,
            **{index: _missing_in(answer) for index, answer in answers.items()},
        }
        return [f"Process {index}: {line}" for index, lines in sorted(missing.items()) for line in lines]

    async def metrics(self) -> CollectorRegistry:
        answers = await self._others.ask("metrics", decode_families)
        told = {index: answer for index, answer in answers.items() if not isinstance(answer, No)}
        answered = GaugeMetricFamily(
            PROCESS_ANSWERS, "Whether this process has told its metrics.", labels=(LABEL,)
        )
        for index in range(self._sibling.count):
            answered.add_metric((str(index),), float(index == self._sibling.index or index in told))
        own = {self._sibling.index: families_of(self._registry)}
        return cast("CollectorRegistry", MergedRegistry(own | told, (answered,)))

    async def _say_live(self) -> bytes:
        return b"ok"

    async def _say_ready(self) -> bytes:
        return msgspec.json.encode(await self._readiness())

    async def _say_metrics(self) -> bytes:
        return encode_families(families_of(self._registry))


def _decode_lines(answer: bytes) -> list[str]:
    return msgspec.json.decode(answer, type=list[str])


def _missing_in(answer: list[str] | No) -> list[str]:
    return [_MISSING[answer]] if isinstance(answer, No) else answer


async def _answer(send: Any, status: int, content_type: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
