"""The parts of the examples that people copy, where an API or a gateway does not do as usual."""

import asyncio
import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Stored:
    """An API that keeps what is appended to its only run."""

    def __init__(self) -> None:
        self.events = list[dict[str, Any]]()
        self.refuses: Callable[[httpx.Request], bool] = lambda _: False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.refuses(request):
            return httpx.Response(422)
        body = json.loads(request.content or b"{}")
        self.events += body.get("events", [])
        return httpx.Response(201, json={"last_seq": len(self.events), "stream_url": "/stream"})

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self), base_url="http://juinie.test")


async def test_a_run_that_is_finished_has_all_that_was_emitted_however_much_at_once():
    stored = Stored()
    async with stored.client() as api, example("run_writer").RunWriter(api, "agent", None) as writer:
        for number in range(450):
            writer.emit("token", {"n": number})
        await writer.finish(None)
    assert [event["data"]["n"] for event in stored.events] == list(range(450))


async def test_a_run_does_not_end_well_where_an_append_was_refused(monkeypatch: pytest.MonkeyPatch):
    run_writer, stored = example("run_writer"), Stored()
    monkeypatch.setattr(run_writer, "WINDOW_SECONDS", 0)
    stored.refuses = lambda request: request.url.path.endswith("/events")
    async with stored.client() as api, run_writer.RunWriter(api, "agent", None) as writer:
        writer.emit("token", {})
        await asyncio.wait({writer._flusher})
        with pytest.raises(httpx.HTTPStatusError):
            await writer.finish(None)


class Audience:
    def __init__(self) -> None:
        self.endings = list[str]()

    def connected(self, after_seq: int) -> None: ...
    def received(self, event: dict[str, Any], replayed: bool) -> None: ...
    def caught_up(self, replayed: int) -> None: ...
    def dropped(self, after_seq: int) -> None: ...
    def ended(self, status: str) -> None:
        self.endings.append(status)


CUT_BEFORE_THE_END = b"""retry: 1

id: 1
data: {"seq":1,"type":"run.created","data":{}}

id: 2
data: {"seq":2,"type":"run.finished","data":{"status":"success"}}

"""


async def test_a_watcher_that_was_cut_just_before_the_end_is_told_that_there_is_nothing_more():
    answers = iter(
        [
            httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=CUT_BEFORE_THE_END),
            httpx.Response(502),
            httpx.Response(204),
        ]
    )
    audience = Audience()
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: next(answers))) as client:
        watcher = example("run_watcher").RunWatcher(client, "http://juinie.test/stream", audience)
        await watcher.follow()
    assert (watcher.seqs, audience.endings) == ([1, 2], ["success"])


def test_a_key_may_read_and_write_unless_told_otherwise():
    plan = subprocess.run(
        ["make", "-n", "key", "TENANT=other"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert '--tenant "other" --scopes "read,write"' in plan
