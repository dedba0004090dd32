"""The hubs that other systems hand streams out with, each set up for its SSE watchers and with a history of its own to resume from.

Both are configured as their documentation has it, and listen on 127.0.0.1. Their watchers come without a token: what it costs to
look at one is part of coming, and not of a delivery.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import jwt
from fan_out import Sender, Source, event_json
from peer_programs import given_program, go_program, running
from reach import http_client
from world import PARTITIONS, World

from juinie_shared.domain.ids import RunId
from juinie_shared.domain.times import format_time
from juinie_testkit.backing.docker import free_port
from juinie_testkit.kafka import create_topic

CENTRIFUGO = ("centrifugo", "github.com/centrifugal/centrifugo/v6", "v6.9.1")
_HISTORY_EVENTS = 1_000
_PUBLISHER_KEY = "only-the-bench-" * 3


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was tried with both: settings of Go's runtime, and to keep no history, so that nobody can resume."""

    runtime: Mapping[str, str] = field(default_factory=dict[str, str])
    history: bool = True


BEST = Tuning({"GOGC": "400", "GOMAXPROCS": "1"})
TRIED: Mapping[str, Tuning] = {
    "best": BEST,
    "as is": Tuning(),
    "GOGC 400": Tuning({"GOGC": "400"}),
    "GOMAXPROCS 1": Tuning({"GOMAXPROCS": "1"}),
    "best, no history": replace(BEST, history=False),
}


@dataclass(frozen=True, slots=True)
class Hub:
    """One that runs. `request`: what a watcher of a run sends to it. `marks`: as a `Crowd` has them; by themselves around the number
    in an event's JSON.
    """

    pid: int
    port: int
    request: Callable[[RunId], bytes]
    marks: tuple[bytes, bytes] = (b'"seq":', b",")


@asynccontextmanager
async def centrifugo(
    world: World, runs: Sequence[RunId], tuning: Tuning = BEST
) -> AsyncGenerator[tuple[Hub, Sender]]:
    """Centrifugo, which reads a topic itself: our own records, whose `ce_subject` names the channel.

    Raises:
        Missing: it cannot be had here.
    """
    assert world.kafka is not None
    program, port = go_program(*CENTRIFUGO), free_port()
    name = f"centrifugo-{port}"
    topic = f"peer.{name}"
    await create_topic(world.kafka.bootstrap, topic, PARTITIONS)
    configuration = world.directory / f"{name}.json"
    settings = _centrifugo_settings(port, world.kafka.bootstrap, topic, history=tuning.history)
    configuration.write_text(json.dumps(settings))
    command, log = [str(program), "--config", str(configuration)], world.directory / f"{name}.log"
    with running(name, command, log, tuning.runtime, _answers(port, "/health")) as child:
        async with Source(world, runs, topic) as source:
            yield Hub(child.pid, port, _centrifugo_request), source


def _centrifugo_settings(port: int, kafka: str, topic: str, *, history: bool) -> dict[str, object]:
    kept = {"history_size": _HISTORY_EVENTS, "history_ttl": "300s", "force_recovery": True}
    return {
        "http_server": {"address": "127.0.0.1", "port": str(port)},
        "client": {"allow_anonymous_connect_without_token": True},
        "channel": {
            "without_namespace": {
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                **(kept if history else {}),
            }
        },
        "uni_sse": {"enabled": True},
        "health": {"enabled": True},
        "prometheus": {"enabled": True},
        "consumers": [
            {
                "enabled": True,
                "name": "events",
                "type": "kafka",
                "kafka": {
                    "brokers": [kafka],
                    "topics": [topic],
                    "consumer_group": "centrifugo",
                    "publication_data_mode": {"enabled": True, "channels_header": "ce_subject"},
                },
            }
        ],
    }


def _centrifugo_request(run: RunId) -> bytes:
    connect = quote(json.dumps({"subs": {str(run): {}}}))
    return f"GET /connection/uni_sse?cf_connect={connect} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


@asynccontextmanager
async def mercure(
    world: World, runs: Sequence[RunId], program: Path | None, tuning: Tuning = BEST
) -> AsyncGenerator[tuple[Hub, Sender]]:
    """Mercure's hub, with the transport that it has by itself (Bolt, a file); its publisher posts each event to it.

    Raises:
        Missing: it cannot be had here.
    """
    found, port = given_program("mercure", program), free_port()
    name = f"mercure-{port}"
    configuration = world.directory / f"{name}.caddyfile"
    configuration.write_text(_caddyfile(port, world.directory / f"{name}.db", history=tuning.history))
    command = [str(found), "run", "--config", str(configuration), "--adapter", "caddyfile"]
    log, ready = world.directory / f"{name}.log", _answers(port, "/ready")
    with running(name, command, log, tuning.runtime, ready) as child:
        token = jwt.encode({"mercure": {"publish": ["*"]}}, _PUBLISHER_KEY, "HS256")
        headers = {"Authorization": f"Bearer {token}"}
        async with http_client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            yield Hub(child.pid, port, _mercure_request), Updates(client, runs)


def _caddyfile(port: int, database: Path, *, history: bool) -> str:
    transport = f"bolt {{\n path {database}\n size {_HISTORY_EVENTS}\n }}" if history else "local"
    return f"""{{
    admin off
    auto_https off
    persist_config off
    skip_install_trust
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    mercure {{
        publisher_jwt {_PUBLISHER_KEY} HS256
        subscriber_jwt {_PUBLISHER_KEY} HS256
        anonymous
        transport {transport}
    }}
    respond /ready 200
}}
"""


def _mercure_request(run: RunId) -> bytes:
    return f"GET /.well-known/mercure?topic={run} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


class Updates:
    """Events of many runs, posted to Mercure's hub one by one: it has no other way in. Each is named by its seq."""

    def __init__(self, client: httpx.AsyncClient, runs: Sequence[RunId]) -> None:
        self._client, self._runs = client, runs
        self._last = [0] * len(runs)
        self._next = 0

    @property
    def events_a_run(self) -> int:
        return min(self._last)

    async def send(self, ticks: int, tick_seconds: float, runs_a_tick: int) -> None:
        for _ in range(ticks):
            began = time.perf_counter()
            for _ in range(runs_a_tick):
                await self._post()
            await asyncio.sleep(max(0.0, began + tick_seconds - time.perf_counter()))

    async def _post(self) -> None:
        place = self._next
        self._next = (self._next + 1) % len(self._runs)
        self._last[place] += 1
        seq = self._last[place]
        event = event_json(seq, format_time(datetime.now(UTC))).decode()
        answer = await self._client.post(
            "/.well-known/mercure", data={"topic": str(self._runs[place]), "id": str(seq), "data": event}
        )
        answer.raise_for_status()


def _answers(port: int, path: str) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    return is_ready
