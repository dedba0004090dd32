"""The programs that the tutorial and the how-to pages show run as they are printed."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx

from juinie_testkit.waits import await_outbox_flush, eventually

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = "tutorial/first-run.md"
WORDS = "the sky is blue because air scatters blue light more than red"


def code(page: str, number: int = 0, language: str = "python") -> str:
    """A page's code block of this language, by its place."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)[
        number
    ]


@asynccontextmanager
async def run(*command: str | Path, folder: Path, **environment: str) -> AsyncGenerator[Process]:
    """A program that is killed at the end, whatever happens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=folder, env={**os.environ, **environment}, stdout=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def up_to(process: Process, text: str) -> str:
    """What the program prints up to its next line with `text`."""
    assert process.stdout
    printed = ""
    async with asyncio.timeout(30):
        while line := await process.stdout.readline():
            printed += line.decode()
            if text in line.decode():
                return printed
    raise AssertionError(f"it ended without a line with {text}")


async def test_tutorial_watcher_sees_each_word_once_though_both_services_are_killed(
    juinie: Any, tmp_path: Path
) -> None:
    (tmp_path / "agent.py").write_text(code(TUTORIAL, 0))
    (tmp_path / "watcher.py").write_text(code(TUTORIAL, 1))
    run_id, environment = str(uuid4()), juinie.environment
    api, _publisher, gateway = juinie.stack.services
    await create_as_the_agent_will(juinie, run_id)

    async with run("watcher.py", run_id, folder=tmp_path, **environment) as watcher:
        seen = await up_to(watcher, "run.created")
        async with run("agent.py", run_id, WORDS, folder=tmp_path, PAUSE="0.3", **environment) as agent:
            seen += await up_to(watcher, "'sky '")
            await gateway.kill()
            await api.kill()
            await juinie.stack.start()
            assert watcher.stdout
            async with asyncio.timeout(60):
                seen += (await watcher.stdout.read()).decode()
                assert await watcher.wait() == 0
                assert await agent.wait() == 0

    shown = [line.split()[0] for line in seen.splitlines() if line[0].isdigit()]
    assert shown == [str(seq) for seq in range(1, len(WORDS.split()) + 4)]
    assert "-- the connection is gone; coming back after" in seen


async def create_as_the_agent_will(juinie: Any, run_id: str) -> None:
    """The agent's own create is then a replay, so that somebody can watch before it begins."""
    headers = juinie.headers | {"Idempotency-Key": run_id}
    async with httpx.AsyncClient(headers=headers) as client:
        await client.post(f"{juinie.api_url}/v1/runs", json={"run_id": run_id, "agent": "tutorial"})


async def wait_for_run(juinie: Any, run_id: str) -> None:
    """Return once the tutorial's agent has created its run."""
    headers = juinie.headers
    async with httpx.AsyncClient(headers=headers) as client:

        async def created() -> bool:
            return (await client.get(f"{juinie.api_url}/v1/runs/{run_id}")).is_success

        await eventually(created, 30, f"the run {run_id} is there")


async def test_tutorial_agent_stops_when_it_is_asked_to(juinie: Any, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(code(TUTORIAL, 0))
    run_id, headers = str(uuid4()), juinie.headers

    async with (
        httpx.AsyncClient(headers=headers) as client,
        run("agent.py", run_id, WORDS, folder=tmp_path, PAUSE="0.2", **juinie.environment) as agent,
    ):
        await wait_for_run(juinie, run_id)
        await client.post(f"{juinie.api_url}/v1/runs/{run_id}/cancel", json={"reason": "enough"})
        async with asyncio.timeout(30):
            assert await agent.wait() == 1
        ended = await client.get(f"{juinie.api_url}/v1/runs/{run_id}")

    assert ended.json()["status"] == "cancelled"


async def test_consumer_of_the_how_to_prints_each_event_of_a_run(juinie: Any, tmp_path: Path) -> None:
    consumer_code = code("how-to/consume-from-kafka.md")
    (tmp_path / "consumer.py").write_text(
        consumer_code.replace("juinie.run-events", juinie.stack.kafka_topic)
    )
    headers = juinie.headers
    async with httpx.AsyncClient(base_url=juinie.api_url, headers=headers) as client:
        run_id = (await client.post("/v1/runs", json={"agent": "docs"})).json()["run_id"]
        await client.post(f"/v1/runs/{run_id}/events", json={"events": [{"type": "STEP"}]})
        await client.post(f"/v1/runs/{run_id}/finish", json={"status": "success"})
    await await_outbox_flush(juinie.pool, UUID(run_id))

    async with run(
        "-m", "faststream", "run", "consumer:app", folder=tmp_path, **juinie.environment
    ) as consumer:
        printed = await up_to(consumer, f"{run_id} 4")

    told = [line.split()[1:] for line in printed.splitlines() if line.startswith(run_id)]
    assert told == [["1", "run.created"], ["2", "run.started"], ["3", "STEP"], ["4", "run.finished"]]


async def test_address_of_the_how_to_opens_a_stream_without_a_key(juinie: Any) -> None:
    shown: dict[str, Any] = {}
    exec(code("how-to/resume-in-a-browser.md"), shown)
    headers = juinie.headers
    async with httpx.AsyncClient(base_url=juinie.api_url, headers=headers) as client:
        run_id = (await client.post("/v1/runs", json={"agent": "docs"})).json()["run_id"]
        await client.post(f"/v1/runs/{run_id}/finish", json={"status": "success"})

    address = await shown["stream_address"](juinie.api_url, juinie.key, run_id)

    async with httpx.AsyncClient() as stranger:
        stream = await stranger.get(address)
    assert "event: stream.end" in stream.text


async def test_worker_of_the_how_to_does_a_run_and_lets_go_of_one_that_is_cancelled(
    juinie: Any, tmp_path: Path
) -> None:
    (tmp_path / "worker.py").write_text(code("how-to/run-workers.md"))
    body = {"agent": "shout", "input": {"text": "so it goes on and on"}}
    async with (
        httpx.AsyncClient(base_url=juinie.api_url, headers=juinie.headers) as client,
        run("worker.py", "2", folder=tmp_path, PAUSE="0.2", **juinie.environment) as worker,
    ):
        done = (await client.post("/v1/runs", json=body)).json()["run_id"]
        await up_to(worker, f"{done} done")
        events = (await client.get(f"/v1/runs/{done}/events")).json()["events"]
        cancelled = (await client.post("/v1/runs", json=body)).json()["run_id"]

        async def begun() -> bool:
            return (await client.get(f"/v1/runs/{cancelled}")).json()["last_seq"] > 2

        await eventually(begun, 30, "a word of the second run")
        await client.post(f"/v1/runs/{cancelled}/cancel")
        async with asyncio.timeout(60):
            assert await worker.wait() == 0
        ended = (await client.get(f"/v1/runs/{cancelled}")).json()

    assert [event["data"] for event in events if event["type"] == "WORD"] == [
        "SO",
        "IT",
        "GOES",
        "ON",
        "AND",
        "ON",
    ]
    assert ended["status"] == "cancelled"
