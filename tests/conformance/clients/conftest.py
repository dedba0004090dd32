"""One rough ride for every public client: cut in the middle of frames, a gateway that restarts, and the end.

Whatever the client, it has to report 1..n, each once, in order, the end once, and stop where HTTP lets it.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, override
from urllib.parse import urlsplit

import pytest

from juinie_testkit.stack import Stack

NODE = Path(__file__).parent.parent / "node"
SKIP = "JUINIE_SKIP_CLIENT_TESTS"


# ---- what a client tells ---------------------------------------------------------------------------------------------


class ClientLog:
    """What one client told, in the order in which it happened: `open`, `event`, `stream.*`, `lost`, `stopped`."""

    def __init__(self) -> None:
        self.facts: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.named("event")

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fact for fact in self.facts if fact["fact"] == name]

    async def note(self, name: str, **details: Any) -> None:
        async with self._changed:
            self.facts.append({"fact": name, **details})
            self._changed.notify_all()

    async def until(self, name: str, times: int = 1, timeout_seconds: float = 30) -> None:
        """Wait until the client has told `name` so many times."""
        await self._until(lambda: len(self.named(name)) >= times, f"{times} x {name!r}", timeout_seconds)

    async def until_seq(self, seq: int, timeout_seconds: float = 30) -> None:
        """Wait until the client has got event `seq`."""
        await self._until(lambda: seq in self.seqs, f"event {seq}", timeout_seconds)

    async def _until(self, holds: Callable[[], bool], what: str, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(holds)
        except TimeoutError:
            pytest.fail(f"no {what} within {timeout_seconds:g} s; the client told: {self.facts[-12:]}")


@pytest.fixture
def client_log() -> type[ClientLog]:
    """Makes the log of a client that runs in this process."""
    return ClientLog


type Start = Callable[..., AbstractAsyncContextManager[ClientLog]]
"""Starts a client on an address: `start(url, token=…, key=…)`; leaving the context ends the client."""


# ---- what lies between a client and the gateway -------------------------------------------------------------------------


class CuttingProxy:
    """Passes bytes on, and cuts a connection exactly behind bytes that a test names, whatever frame that is in."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self._pattern: bytes | None = None
        self._reset = False
        self._was_cut: asyncio.Future[None]
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[str] = []
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator["CuttingProxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield self
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_behind(self, pattern: bytes, *, reset: bool = False) -> Awaitable[None]:
        """Cut the connection on which `pattern` comes next, right behind it; the answer is done once that is done.

        `reset`: with a TCP reset, which may take bytes along that were sent before.
        """
        self._pattern, self._reset = pattern, reset
        self._was_cut = asyncio.get_running_loop().create_future()
        return self._was_cut

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:  # the gateway is away
            writer.transport.abort()
            return
        up = asyncio.create_task(self._up(reader, server_writer))
        down = asyncio.create_task(self._down(server_reader, writer))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            writer.close()
            server_writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.requests.append(data.decode("latin-1").lower())
            writer.write(data)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = b""
        while data := await reader.read(65536):
            seen += data
            if self._pattern and (at := seen.find(self._pattern)) >= 0:
                end = len(data) - (len(seen) - at - len(self._pattern))
                await self._cut(writer, data[:end])
                return
            seen = seen[-200:]
            writer.write(data)
            await writer.drain()

    async def _cut(self, writer: asyncio.StreamWriter, last: bytes) -> None:
        writer.write(last)
        await writer.drain()
        if self._reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self._pattern = None
        self._was_cut.set_result(None)


# ---- the ride ------------------------------------------------------------------------------------------------------------


def _in_its_data(seq: int) -> bytes:
    return b'{"seq":%d,' % seq


def _between_data_and_id(seq: int) -> bytes:
    return b'"mark":%d}}\n' % seq


def _among_the_digits_of_its_id(seq: int) -> bytes:
    return b"\nid: " + str(seq).encode()[:-1]


def _before_its_last_line(seq: int) -> bytes:
    return b"\nid: %d\n" % seq


CUTS = (_in_its_data, _between_data_and_id, _among_the_digits_of_its_id, _before_its_last_line)


class Ride:
    """A run that is written while a client watches it through the proxy."""

    def __init__(self, api: Any, proxy: CuttingProxy, run_id: str) -> None:
        self._api, self._proxy, self.run_id = api, proxy, run_id
        self.last_seq = 1

    async def steps(self, count: int) -> None:
        """Append so many events; each carries the seq that it will have."""
        for _ in range(count):
            mark = {"mark": self.last_seq + 1}
            self.last_seq = await self._api.add(self.run_id, ("STEP", mark))

    async def cut(self, client: ClientLog, place: Callable[[int], bytes], *, reset: bool = False) -> None:
        """Cut the connection within the next event, write on while the client is away, and see it return."""
        cut = self._proxy.cut_behind(place(self.last_seq + 1), reset=reset)
        await self.steps(1)
        await asyncio.wait_for(cut, 30)
        await self.steps(3)
        await client.until_seq(self.last_seq)


@pytest.fixture
def rough_ride(
    api: Any, stack: Stack, key: str
) -> Callable[[Start], Awaitable[tuple[ClientLog, CuttingProxy]]]:
    """Take a client on the ride. Gives what it told and the proxy that it went through, once it has stopped."""

    async def ride(start: Start) -> tuple[ClientLog, CuttingProxy]:
        run_id = await api.new_run()
        async with CuttingProxy(stack.gateway.url).serving() as proxy:
            ride = Ride(api, proxy, run_id)
            ride.last_seq = await api.add(run_id, ("STEP", None), ("STEP", None))
            token = await api.stream_token(run_id)
            url = f"{proxy.url}/v1/runs/{run_id}/stream?after_seq=2"
            async with start(url, key=key, token=token) as client:
                await client.until("stream.caught_up")
                await ride.steps(8)
                for place in CUTS:
                    await ride.cut(client, place)
                await ride.cut(client, _in_its_data, reset=True)
                await stack.gateway.restart()
                await ride.steps(3)
                await client.until_seq(ride.last_seq)
                await api.end(run_id)
                await client.until("stream.end")
                await client.until("stopped")
            stored = [event for event in await api.events(run_id) if event["seq"] > 2]
        told = [{name: event[name] for name in ("seq", "type", "time", "data")} for event in client.events]
        assert told == stored
        assert [int(event["id"]) for event in client.events] == client.seqs
        assert len(client.named("stream.end")) == 1
        assert client.named("stream.end")[0]["last_seq"] == client.seqs[-1]
        return client, proxy

    return ride


# ---- Node and Chromium ---------------------------------------------------------------------------------------------------


def _need(program: str, *names: str) -> str:
    """The path of a program that the tests need, under the first of its names that is there."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        _cannot(f"{program} is not here: install it (Debian: apt-get install {names[0]})")
    return found


def _cannot(why: str) -> None:
    if os.environ.get(SKIP) == "1":
        pytest.skip(f"{SKIP}=1: {why}")
    pytest.fail(f"{why}, or leave these tests out with {SKIP}=1.", pytrace=False)


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with the client packages installed as the lock file says."""
    program = _need("Node 20 or newer", "nodejs", "node")
    installed, lock = NODE / "node_modules" / ".package-lock.json", NODE / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm = _need("npm", "npm")
        done = subprocess.run([npm, "ci"], cwd=NODE, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            _cannot(
                f"`npm ci` failed in {NODE.name}/: {done.stderr.strip()[-300:]}. Is the npm registry in reach?"
            )
    return program


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    return _need("Chromium", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def node_client(node: str) -> Callable[..., Start]:
    """`node_client("eventsource.mjs")` starts that program; what it prints is what the client tells."""

    def client(script: str, **more: Any) -> Start:
        @asynccontextmanager
        async def start(url: str, key: str = "", token: str = "", **order: Any) -> AsyncGenerator[ClientLog]:
            order = {"url": url, "key": key, "token": token, **more, **order}
            process = await asyncio.create_subprocess_exec(
                node, script, json.dumps(order), cwd=NODE, stdout=asyncio.subprocess.PIPE
            )
            log = ClientLog()
            reading = asyncio.create_task(_read_facts(process, log))
            try:
                yield log
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
                await reading

        return start

    return client


async def _read_facts(process: asyncio.subprocess.Process, log: ClientLog) -> None:
    assert process.stdout
    async for line in process.stdout:
        fact = json.loads(line)
        await log.note(fact.pop("fact"), **fact)
    await log.note("ended", code=process.returncode)


class _Pages(SimpleHTTPRequestHandler):
    """`node/pages`, and beside them the client library as its package has it."""

    @override
    def translate_path(self, path: str) -> str:
        if path.startswith("/fetch-event-source/"):
            name = (
                Path(path).name.removesuffix(".js") + ".js"
            )  # its modules import each other without a suffix
            return str(NODE / "node_modules/@microsoft/fetch-event-source/lib/esm" / name)
        return super().translate_path(path)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def pages() -> Generator[str]:
    """The address of the browser's pages: another origin than the gateway's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Pages, directory=str(NODE / "pages")))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def browser_page(node_client: Callable[..., Start], chromium: str, pages: str) -> Callable[[str], Start]:
    """`browser_page("eventsource.html")` opens that page in Chromium and lets it run."""
    return lambda page: node_client("browser.mjs", chromium=chromium, page=f"{pages}/{page}")
