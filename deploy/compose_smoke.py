"""docker-compose.yml from nothing to gone: build, start, walk one run while parts of the stack are killed, take down.

Works under a project name and on ports of its own, so it disturbs no stack that runs. One line a step; the first step
that fails ends it with what the containers said, exit code 1, and nothing left behind but the image.

    make compose-smoke
"""

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import httpx
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from httpx_sse import SSEError, aconnect_sse

from juinie_standalone.ports import free_ports

PROJECT = f"juinie-smoke-{os.getpid()}"
OURS = ("migrate", "api", "publisher", "stream-gateway")
TRACED = {"juinie-api", "juinie-publisher", "juinie-stream-gateway"}
KEY = {"Authorization": "Bearer jn_dev_local_only"}
START_SECONDS = 180
ARRIVAL_SECONDS = 30


class Failed(Exception):
    """A step did not come out as it must."""


_NAMES = [f"JUINIE_{name}_PORT" for name in ("API", "STREAM", "PUBLISHER", "POSTGRES", "KAFKA")]
PORTS = dict(zip(_NAMES, map(str, free_ports(len(_NAMES))), strict=True))
API = f"http://127.0.0.1:{PORTS['JUINIE_API_PORT']}/v1/runs"
STREAM = f"http://127.0.0.1:{PORTS['JUINIE_STREAM_PORT']}/v1/runs"


def compose(*arguments: str) -> str:
    """Run `docker compose` on our project; gives what it printed."""
    command = ["docker", "compose", "--ansi", "never", "--project-name", PROJECT, *arguments]
    done = subprocess.run(
        command, env=os.environ | PORTS, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(
            f"docker compose {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def start(*services: str) -> None:
    """Bring services up (all by default) and wait until their health checks pass."""
    alone = ["--no-deps", "--no-recreate"] if services else []
    compose("up", "--detach", "--wait", "--wait-timeout", str(START_SECONDS), *alone, *services)


@contextmanager
def step(story: str) -> Generator[None]:
    """One line with its time, when it went well."""
    began = time.monotonic()
    yield
    print(f"  {time.monotonic() - began:6.1f} s  {story}", flush=True)


async def until(probe: Callable[[], Awaitable[str]], seconds: float = ARRIVAL_SECONDS) -> None:
    """Wait until `probe` finds nothing missing. What it missed last is what the failure tells."""
    deadline = time.monotonic() + seconds
    while missing := await probe():
        if time.monotonic() > deadline:
            raise Failed(f"after {seconds:g} s: {missing}")
        await asyncio.sleep(0.1)


class Run:
    """One run, written through the API under one trace."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.run_id = str(uuid.uuid4())
        self.trace_id = secrets.token_hex(16)
        self.last_seq = 0

    async def post(self, path: str, body: object) -> dict[str, object]:
        """POST to the run; any answer but success is a failure."""
        headers = KEY | {"traceparent": f"00-{self.trace_id}-{secrets.token_hex(8)}-01"}
        answer = await self.client.post(f"{API}{path}", json=body, headers=headers)
        if not answer.is_success:
            raise Failed(f"POST {path}: {answer.status_code} {answer.text}")
        content = answer.json()
        self.last_seq = content["last_seq"]
        return content

    async def create(self) -> None:
        await self.post("", {"run_id": self.run_id, "agent": "smoke"})

    async def append(self, count: int) -> None:
        events = [
            {"type": "TEXT_MESSAGE_CONTENT", "data": {"delta": f"{number} "}} for number in range(count)
        ]
        await self.post(f"/{self.run_id}/events", {"events": events})

    async def finish(self) -> None:
        await self.post(f"/{self.run_id}/finish", {"status": "success", "output": {"answer": 42}})


class Watcher:
    """Follows a run and comes back after its last id, as EventSource does."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seqs: list[int] = []
        self.connections = 0
        self.end: dict[str, object] | None = None

    async def follow(self) -> None:
        while self.end is None:
            try:
                await self._connect()
            except (httpx.TransportError, SSEError):
                await asyncio.sleep(0.3)  # the client's pause before it comes back

    async def _connect(self) -> None:
        headers = KEY | ({"Last-Event-ID": str(self.seqs[-1])} if self.seqs else {})
        url = f"{STREAM}/{self.run.run_id}/stream"
        async with aconnect_sse(self.run.client, "GET", url, headers=headers) as source:
            self.connections += 1
            async for event in source.aiter_sse():
                if event.event == "message":
                    self.seqs.append(event.json()["seq"])
                elif event.event == "stream.end":
                    self.end = event.json()

    async def missing(self) -> str:
        """What of the run has not arrived, or arrived wrongly; empty when all is well."""
        wanted = list(range(1, self.run.last_seq + 1))
        return "" if self.seqs == wanted else f"the watcher has {self.seqs}, of 1 to {self.run.last_seq}"

    async def missing_end(self) -> str:
        wanted = {"last_seq": self.run.last_seq, "status": "success"}
        return await self.missing() or ("" if self.end == wanted else f"the end is {self.end}")


@asynccontextmanager
async def watching(run: Run) -> AsyncGenerator[Watcher]:
    """A watcher that follows in the background while the block runs."""
    watcher = Watcher(run)
    following = asyncio.create_task(watcher.follow())
    try:
        yield watcher
    finally:
        following.cancel()


async def records_missing(run: Run) -> str:
    """Read the topic from the host until the run's last record: its seqs must be whole, under the run's trace."""
    seqs: list[int] = []
    consumer = AIOKafkaConsumer(
        "juinie.run-events",
        bootstrap_servers=f"127.0.0.1:{PORTS['JUINIE_KAFKA_PORT']}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        await consumer.start()
        async with asyncio.timeout(ARRIVAL_SECONDS):
            while run.last_seq not in seqs:
                record = cast("ConsumerRecord[bytes, bytes]", await consumer.getone())
                if record.key != run.run_id.encode():
                    continue
                seqs.append(json.loads(record.value or b"")["seq"])
                if run.trace_id.encode() not in dict(record.headers).get("traceparent", b""):
                    return f"the record of event {seqs[-1]} does not carry its request's trace"
    except TimeoutError:
        return f"Kafka has {seqs}, of 1 to {run.last_seq}"
    finally:
        await consumer.stop()
    in_order = list(dict.fromkeys(seqs)) == list(range(1, run.last_seq + 1))
    return "" if in_order else f"Kafka has {seqs}"


async def trace_missing(trace_id: str) -> str:
    """The services whose spans in the collector's output neither belong to the trace nor link to it."""
    output = await asyncio.to_thread(compose, "logs", "--no-log-prefix", "otel-collector")
    seen = {
        name[1]
        for part in re.split(r"ResourceSpans #", output)
        if trace_id in part and (name := re.search(r"service\.name: Str\(([^)]*)\)", part))
    }
    return f"trace {trace_id} was not seen at {', '.join(sorted(TRACED - seen))}" if TRACED - seen else ""


LOOK_INSIDE = """
import os, pathlib
assert os.getuid() == 10001, f"runs as user {os.getuid()}"
try:
    pathlib.Path("/opt/juinie/written").touch()
except OSError as error:
    assert error.errno == 30, error
else:
    raise AssertionError("the file system can be written to")
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
assert int(status["CapBnd"], 16) == 0, "capabilities: " + status["CapBnd"]
assert int(status["NoNewPrivs"]) == 1, "may gain privileges"
"""
"""What each container of ours is held to: nobody's user, a file system that is only read (EROFS), no capabilities."""


def look_inside() -> None:
    """See that our services run as confined as the compose file says."""
    for service in OURS[1:]:
        compose("exec", "--no-TTY", service, "python", "-c", LOOK_INSIDE)


async def walk() -> None:
    """Create, append, stream, kill, resume, finish; then look for the run on Kafka and in the traces."""
    timeout = httpx.Timeout(10, read=25)
    async with httpx.AsyncClient(timeout=timeout) as client:
        run = Run(client)
        with step("a run is created, and a watcher gets its first events"):
            await run.create()
            await run.append(3)
        async with watching(run) as watcher:
            await until(watcher.missing)
            with step("publisher killed: the watcher still gets what is appended"):
                await asyncio.to_thread(compose, "kill", "publisher")
                await run.append(3)
                await until(watcher.missing)
                await asyncio.to_thread(start, "publisher")
            with step("stream-gateway killed: the watcher comes back and has everything once"):
                await asyncio.to_thread(compose, "kill", "stream-gateway")
                await run.append(3)
                await asyncio.to_thread(start, "stream-gateway")
                await until(watcher.missing)
                if watcher.connections < 2:
                    raise Failed("the watcher was not cut off: nothing was killed")
            with step("the run is finished, and the stream says so and ends"):
                await run.append(3)
                await run.finish()
                await until(watcher.missing_end)
        with step("Kafka, read from the host, has every record in order with the request's trace"):
            if missing := await records_missing(run):
                raise Failed(missing)
        with step("the collector has the trace at all three services"):
            await until(lambda: trace_missing(run.trace_id))


def walk_of_the_readme() -> None:
    """The README's five minutes, by the test that pastes them."""
    env = {"JUINIE_API_URL": API, "JUINIE_STREAM_URL": STREAM}
    lines = [f"{name}={url.removesuffix('/v1/runs')}\n" for name, url in env.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".env") as file:
        file.writelines([*lines, "JUINIE_API_KEY=jn_dev_local_only\n"])
        file.flush()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "tests/docs/test_readme_walk.py",
            ],
            env=os.environ | {"JUINIE_WALK_ENV": file.name, "PYTEST_ADDOPTS": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise Failed(done.stdout)


def take_down() -> None:
    """Containers, networks and volumes of our project."""
    compose("down", "--volumes", "--remove-orphans", "--timeout", "15")
    label = f"label=com.docker.compose.project={PROJECT}"
    for kind in ("container", "volume", "network"):
        ask = [
            "docker",
            kind,
            "ls",
            "--quiet",
            "--filter",
            label,
            *(["--all"] if kind == "container" else []),
        ]
        if left := subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split():
            raise Failed(f"left behind: {kind} {left}")


def main() -> None:
    """Every step in turn; down in any case."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{PROJECT}: the stack of docker-compose.yml", flush=True)
    try:
        with step("the image is built"):
            compose("build")
        with step("docker compose up --wait: everything is healthy"):
            start()
        with step("our services run as nobody, on a file system that is only read, without capabilities"):
            look_inside()
        with step("the README's walk prints what the README says"):
            walk_of_the_readme()
        asyncio.run(walk())
    except Failed:
        print(compose("ps", "--all"), compose("logs", "--tail", "20", *OURS), sep="\n", file=sys.stderr)
        raise
    finally:
        with step("taken down, with its volumes"):
            take_down()


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"compose smoke: FAILED: {failure}")
    print("compose smoke: passed")
