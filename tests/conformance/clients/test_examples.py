"""The examples against the running stack: what a newcomer sees first has to work."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def settings(stack, key):
    return {"JUINIE_API_URL": stack.api.url, "JUINIE_STREAM_URL": stack.gateway.url, "JUINIE_API_KEY": key}


async def _demo(settings, *arguments, program="agent_run.py"):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", str(EXAMPLES / program), *arguments,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "110", **settings}, limit=1 << 20,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


async def test_the_demo_drops_its_watcher_twice_and_loses_nothing(settings):
    demo = await _demo(settings, "--pace", "0.005")
    output = (await demo.communicate())[0].decode()

    assert demo.returncode == 0, output
    assert output.count("✓") == 3
    assert "over 3 connections" in output
    assert re.search(r"\d+ events in \d+ appends, finished", output)


@pytest.mark.parametrize(("lost", "line"), [("stack", "does not answer"), ("key", "refused")])
async def test_the_demo_says_in_one_line_what_it_lacks(settings, lost, line):
    wrong = {"JUINIE_API_URL": "http://127.0.0.1:9"} if lost == "stack" else {"JUINIE_API_KEY": "jn_wrong"}
    demo = await _demo({**settings, **wrong})
    output = (await demo.communicate())[0].decode()

    assert demo.returncode == 1
    assert line in output
    assert len(output.strip().splitlines()) == 1


async def test_the_page_shows_the_run_through_a_drop(settings, node_client, chromium):
    demo = await _demo(settings, "--browser", "--pace", "0.03")
    assert demo.stdout
    while "#http" not in (line := (await demo.stdout.readline()).decode()):
        assert line, "the demo ended without a link"

    async with node_client("example-page.mjs", chromium=chromium)(line.strip()) as page:
        await page.until("finished", timeout_seconds=60)
    await demo.communicate()

    assert demo.returncode == 0
    finished = page.named("finished")[0]
    assert finished["state"] == "finished: success"
    assert "Yes, take the bicycle." in finished["text"]
    assert finished["text"].strip().endswith("it gets dark before you are home.")
    assert [entry[0] for entry in finished["log"]] == ["✂", "↻", "»", "■"]


async def _up_to(program, text):
    assert program.stdout
    async with asyncio.timeout(60):
        while text not in (line := (await program.stdout.readline()).decode()):
            assert line, f"it ended without a line with {text}"
    return line


async def test_the_worker_does_a_run_of_its_own(settings, api):
    worker = await _demo(settings, "--ask", "so it goes", "--pace", "0", program="worker.py")
    output = (await worker.communicate())[0].decode()

    assert worker.returncode == 0, output
    run_id = output.split()[0]
    assert output.splitlines() == [f"{run_id} claimed, attempt 1", f"{run_id} done"]
    assert (await api.get(run_id))["output"] == {"words": 3}


async def test_a_worker_takes_over_from_one_that_was_killed(settings, api):
    first = await _demo(settings, "--pace", "0.2", program="worker.py")
    await _up_to(first, "waits for runs")
    run_id = (await api.create(agent="echo", input={"text": " ".join("abcdefghij")}))["run_id"]
    await _up_to(first, f"{run_id} claimed, attempt 1")
    second = await _demo(settings, "--pace", "0", program="worker.py")
    await _up_to(second, "waits for runs")
    first.kill()
    await first.communicate()
    await _up_to(second, f"{run_id} claimed, attempt 2")
    await _up_to(second, f"{run_id} done")

    types = [event["type"] for event in await api.events(run_id)]
    assert types.count("run.lease_expired") == 1
    assert types[-1] == "run.finished"
    second.terminate()
    assert await asyncio.wait_for(second.wait(), 30) == 0
