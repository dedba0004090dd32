"""The run as the API and the gateway tell it."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from juinie.client import Client
from juinie.errors import Refused, unreadable
from juinie.events import RunEvent
from juinie.run_stream import RunStream
from juinie.verify.comparisons import TERMINAL, faults_of_copy, faults_of_end, faults_of_seqs
from juinie.verify.report import Report

_GONE = "events_gone"


@dataclass(frozen=True)
class Log:
    """A run, and the events that its pages have: from `first_seq` on, which is 1 unless older ones are kept no more."""

    run: dict[str, Any]
    events: list[RunEvent]
    first_seq: int

    @property
    def finished(self) -> bool:
        return self.run["status"] in TERMINAL

    @property
    def until_seq(self) -> int | None:
        """Up to where a copy of it is compared: an open run goes on meanwhile, behind an end comes nothing (None)."""
        return None if self.finished else self.run["last_seq"]


async def read_log(client: Client, run_id: str) -> Log:
    """The run's row, then its pages: of an open run up to the row's last seq, what is there now; of a finished one all."""
    run = await client.get_run(run_id)
    first_seq, events = 1, list[RunEvent]()
    try:
        events = await _pages(client, run_id, 0)
    except Refused as error:
        if error.code != _GONE:
            raise
        first_seq = _kept_from(error)
        events = await _pages(client, run_id, first_seq - 1)
    until_seq = Log(run, [], first_seq).until_seq
    return Log(run, [event for event in events if until_seq is None or event.seq <= until_seq], first_seq)


def _kept_from(refusal: Refused) -> int:
    first_seq = refusal.problem.get("retained_from_seq")
    if not isinstance(first_seq, int):
        raise unreadable(refusal.status, "events that are gone, and no retained_from_seq") from refusal
    return first_seq


def check_log(log: Log, report: Report) -> None:
    """The pages by themselves."""
    first, last = log.first_seq, log.run["last_seq"]
    report.add("pages", f"seqs {first} to {last}, each once", faults_of_seqs(log.events, first, last))
    what = f"ends as {log.run['status']}" if log.finished else f"open: {log.run['status']}"
    kept = "" if first <= last else ", and none of its events is kept"
    report.add("pages", f"{what}{kept}", faults_of_end(log.events, log.run, first))


async def check_stream(client: Client, log: Log, report: Report, timeout_seconds: float) -> None:
    """The stream against the pages."""
    streamed, faults = list[RunEvent](), list[str]()
    try:
        async with asyncio.timeout(timeout_seconds):
            await _stream(client, log, streamed)
    except TimeoutError:
        faults.append(f"no end within {timeout_seconds:g} s")
    faults += faults_of_copy(log.events, streamed)
    what = f"{len(log.events)} events, byte for byte{', and the end' if log.finished else ''}"
    report.add("stream", what, faults)


async def _pages(client: Client, run_id: str, after_seq: int) -> list[RunEvent]:
    async with aclosing(client.pages(run_id, after_seq)) as pages:
        return [event async for page in pages for event in page]


async def _stream(client: Client, log: Log, streamed: list[RunEvent]) -> None:
    """Add what comes, up to stream.end, or up to the last event of an open run's log."""
    urls = [f"{url}/v1/runs/{log.run['run_id']}/stream" for url in client.stream_urls]
    async with aclosing(RunStream(client.http, urls, log.first_seq - 1).events()) as events:
        async for event in events:
            streamed.append(event)
            if not log.finished and event.seq >= log.run["last_seq"]:
                break
