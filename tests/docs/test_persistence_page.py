"""`docs/project/persistence-before-after.md`: the same four steps with a stream in memory and with Juinie.

Each step asks both the same questions; the page's diff blocks are their answers side by side.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "project/persistence-before-after.md"

type Step = dict[str, str]
"""Questions and answers, in order."""


@dataclass
class Stream:
    """One of the two: where it is, how it is killed and started again, and what of a run is on its disk."""

    api_url: str
    stream_url: str
    headers: dict[str, str]
    restart: Callable[[], Awaitable[None]]
    stored: Callable[[str], Awaitable[list[str]]]


def word(event: dict[str, Any]) -> str:
    return (event.get("data") or {}).get("delta") or event["type"]


async def words(lines: AsyncIterator[str], count: int | None = None) -> list[str]:
    """The next `count` events of a stream, or all that come before its end."""
    seen = list[str]()
    while len(seen) != count and (line := await anext(lines, None)) is not None:
        if line.startswith('data: {"seq"'):
            seen.append(word(json.loads(line.removeprefix("data: "))))
    return seen


async def four_steps(stream: Stream) -> list[Step]:
    """Create, append, restart, reconnect: what is asked and what is answered, step by step."""
    create, append, restart, reconnect = steps = [dict[str, str]() for _ in range(4)]
    async with httpx.AsyncClient(headers=stream.headers, timeout=20) as client:

        async def post(path: str, body: dict[str, Any]) -> httpx.Response:
            return await client.post(stream.api_url + path, json=body)

        async def add(run: str, *deltas: str) -> int:
            events = [{"type": "TEXT_MESSAGE_CONTENT", "data": {"delta": delta}} for delta in deltas]
            return (await post(f"{run}/events", {"events": events})).status_code

        async def on_disk(run_id: str) -> str:
            return ", ".join(await stream.stored(run_id)) or "nothing"

        created = await post("/v1/runs", {"agent": "page"})
        run_id = created.json()["run_id"]
        run = f"/v1/runs/{run_id}"
        create["create a run"] = str(created.status_code)
        create["on disk"] = await on_disk(run_id)

        async with client.stream("GET", f"{stream.stream_url}{run}/stream") as watcher:
            lines = watcher.aiter_lines()
            append['append "Air", "scatters"'] = str(await add(run, "Air", "scatters"))
            append["the watcher sees"] = ", ".join(await words(lines, 4))
            append["on disk"] = await on_disk(run_id)

            await stream.restart()
            with pytest.raises(httpx.TransportError):
                await words(lines)
            restart["the watcher's connection breaks"] = ""
        shown = await client.get(stream.api_url + run)
        restart["ask for the run"] = str(shown.status_code)
        if shown.is_success:
            restart["ask for the run"] += f", {shown.json()['last_seq']} events"
        restart['append "blue", "light"'] = str(await add(run, "blue", "light"))

        async with client.stream(
            "GET", f"{stream.stream_url}{run}/stream", headers={"Last-Event-ID": "4"}
        ) as watcher:
            reconnect["come back after 4"] = str(watcher.status_code)
            lines = watcher.aiter_lines()
            if watcher.is_success:
                reconnect["the watcher sees"] = ", ".join(await words(lines, 2))
            reconnect["finish"] = str((await post(f"{run}/finish", {"status": "success"})).status_code)
            if watcher.is_success:
                reconnect["then it sees"] = ", ".join([*await words(lines), "the end"])
        again = await client.get(f"{stream.stream_url}{run}/stream", headers={"Last-Event-ID": "7"})
        reconnect["come back after everything"] = str(again.status_code)
    return steps


def side_by_side(before: Step, after: Step) -> str:
    """A diff block as the page has it. What one of the two never came to is missing there."""
    lines = list[str]()
    for question in after:
        sides = [("-", before.get(question)), ("+", after[question])]
        if sides[0][1] == sides[1][1]:
            sides = [(" ", after[question])]
        lines += [f"{mark} {question}: {answer}".rstrip(": ") for mark, answer in sides if answer is not None]
    return "\n".join(lines) + "\n"


async def before(in_memory: Any) -> list[Step]:
    async def stored(_run_id: str) -> list[str]:
        return []

    return await four_steps(Stream(in_memory.url, in_memory.url, {}, in_memory.kill_and_start_again, stored))


async def after(juinie: Any) -> list[Step]:
    async def stored(run_id: str) -> list[str]:
        async with juinie.pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT type, data FROM run_event WHERE run_id = $1 ORDER BY seq", UUID(run_id)
            )
        return [word({"type": row["type"], "data": json.loads(row["data"])}) for row in rows]

    return await four_steps(
        Stream(juinie.api_url, juinie.stream_url, juinie.headers, juinie.kill_and_start_again, stored)
    )


@pytest.mark.timeout(240)  # all services start twice, maybe on a busy machine
async def test_each_step_goes_as_the_page_says(juinie: Any, in_memory: Any) -> None:
    told = re.findall(r"^```diff\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    steps = zip(await before(in_memory), await after(juinie), strict=True)

    assert [side_by_side(*step) for step in steps] == told
