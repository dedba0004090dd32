"""Probes of several processes: whichever is asked answers for all, within its time."""

import asyncio
import os
import resource
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from juinie_shared.runtime.meeting_point import MeetingPoint, meeting_point, turn_away
from juinie_shared.runtime.metric_families import LABEL, Family, encode_families
from juinie_shared.runtime.probes import Probes
from juinie_shared.runtime.sibling import Sibling
from juinie_testkit.waits import eventually

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
NOBODY = 65534
READY = {"ready": True, "waiting_for": []}


class Service:
    """A process as its probes see it: what it waits for, and metrics of all kinds."""

    def __init__(self, sibling: Sibling | None = None, hits: int = 0) -> None:
        self.missing: list[str] = []
        registry = CollectorRegistry()
        Counter("hits", "What\nwas hit.", ("by",), registry=registry).labels('"\n\\').inc(hits)
        Gauge("heat", "How hot it is.", registry=registry).set(float("nan"))
        Histogram("wait_seconds", "How long.", registry=registry, buckets=(1, 2)).observe(hits)
        self.probes = Probes(self._readiness, registry, sibling)

    async def _readiness(self) -> list[str]:
        return self.missing

    async def ask(self, path: str, accept: str = "") -> tuple[int, bytes]:
        """Status and body."""
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.probes.apps[path]({"headers": [(b"accept", accept.encode())]}, None, send)
        return sent[0]["status"], sent[1]["body"]

    async def ready(self) -> tuple[int, Any]:
        status, body = await self.ask("/readyz")
        return status, msgspec.json.decode(body)


@pytest.fixture
def meeting() -> Generator[MeetingPoint]:
    """What the parent of two makes for them."""
    with meeting_point(2) as made:
        yield made


def siblings(meeting: MeetingPoint) -> list[Sibling]:
    return [
        Sibling(index, 2, os.getpid(), -1, -1, listener.dup().detach(), meeting.address)
        for index, listener in enumerate(meeting.listeners)
    ]


@asynccontextmanager
async def saying(listener: socket.socket, answer: bytes) -> AsyncGenerator[asyncio.Event]:
    """A sibling that gives this answer, whatever is asked. The event: it has."""
    said = asyncio.Event()

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        said.set()

    async with await asyncio.start_unix_server(say, sock=listener.dup()):
        yield said


@pytest.fixture
async def both(meeting: MeetingPoint) -> AsyncGenerator[tuple[Service, Service]]:
    """Two processes of a service that answer each other."""
    services = [Service(sibling, hits=index + 1) for index, sibling in enumerate(siblings(meeting))]
    answering = [asyncio.create_task(service.probes.run()) for service in services]

    async def all_ready() -> bool:
        return all([(await service.ready())[0] == 200 for service in services])

    await eventually(all_ready, 10, "they answer each other")
    yield services[0], services[1]
    for task in answering:
        task.cancel()
    await asyncio.wait(answering)


async def test_service_is_ready_when_all_its_processes_are(both: tuple[Service, Service]):
    for asked in both:
        assert await asked.ready() == (200, READY)
    both[1].missing = ["The database does not answer."]
    for asked in both:
        assert await asked.ready() == (
            503, {"ready": False, "waiting_for": ["Process 1: The database does not answer."]},
        )  # fmt: skip
        assert (await asked.ask("/livez"))[0] == 200


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
async def test_metrics_are_those_of_all_processes_each_family_told_once(both, accept: str, parse: Any):
    texts = [(await asked.ask("/metrics", accept))[1].decode() for asked in both]
    for text in texts:
        told = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(told) == len(set(told))
        families = {family.name: family for family in parse(text)}
        hits = [sample for sample in families["hits"].samples if sample.name == "hits_total"]
        assert [(sample.labels, sample.value) for sample in hits] == [
            ({"by": '"\n\\', LABEL: "0"}, 1.0), ({"by": '"\n\\', LABEL: "1"}, 2.0)
        ]  # fmt: skip
        assert families["hits"].documentation == "What\nwas hit."
        assert {sample.labels[LABEL] for family in families.values() for sample in family.samples} == {
            "0",
            "1",
        }
        answers = {
            sample.labels[LABEL]: sample.value for sample in families["juinie_process_answers"].samples
        }
        assert answers == {"0": 1.0, "1": 1.0}


async def test_process_without_siblings_adds_nothing_to_its_metrics():
    text = (await Service(hits=1).ask("/metrics"))[1].decode()
    assert LABEL not in text


HALF = encode_families([Family("hits", "", "counter", "", [])])[:-1]


@pytest.mark.parametrize(
    "answer",
    [b"", b'["It is', HALF, b'{"another": "version"}'],
    ids=["none", "half", "half-metrics", "other"],
)
async def test_sibling_that_gives_no_whole_answer_is_missing_and_restarts_nothing(
    meeting: MeetingPoint, answer: bytes
):
    """It died in the middle of it, or is of another version, or the parent turned the question away."""
    asked = Service(siblings(meeting)[1])
    async with saying(meeting.listeners[0], answer):
        assert await asked.ready() == (
            503, {"ready": False, "waiting_for": ["Process 0: It is not there; it is started."]}
        )  # fmt: skip
        assert (await asked.ask("/livez"))[0] == 200
        text = (await asked.ask("/metrics"))[1].decode()
    assert 'juinie_process_answers{process="0"} 0.0' in text
    assert 'juinie_process_answers{process="1"} 1.0' in text


async def test_sibling_whose_question_the_parent_turns_away_is_missing(meeting: MeetingPoint):
    asked = Service(siblings(meeting)[1])
    loop = asyncio.get_running_loop()
    loop.add_reader(meeting.listeners[0], turn_away, meeting.listeners[0])
    assert (await asked.ready())[1]["waiting_for"] == ["Process 0: It is not there; it is started."]
    assert await asked.ask("/livez") == (200, b'{"status":"ok"}')
    loop.remove_reader(meeting.listeners[0])


async def test_sibling_that_nobody_listens_for_is_missing(meeting: MeetingPoint):
    away = Sibling(1, 2, os.getpid(), -1, -1, -1, f"{meeting.address}away-")
    assert (await Service(away).ready())[1]["waiting_for"] == ["Process 0: It is not there; it is started."]


async def test_sibling_that_hangs_is_told_and_holds_up_no_answer(meeting: MeetingPoint):
    asked = Service(siblings(meeting)[0], hits=3)
    assert await asked.ready() == (
        503, {"ready": False, "waiting_for": ["Process 1: It does not answer."]}
    )  # fmt: skip
    assert await asked.ask("/livez") == (503, b'{"status":"hangs","processes":[1]}')
    text = (await asked.ask("/metrics"))[1].decode()
    assert 'juinie_process_answers{process="1"} 0.0' in text
    assert 'wait_seconds_count{process="0"} 1.0' in text


async def test_sibling_that_hangs_is_told_however_often_it_was_asked(meeting: MeetingPoint):
    """The kernel keeps 128 questions that are not accepted, and refuses the next."""
    asked = Service(siblings(meeting)[0])
    answers = await asyncio.gather(*(asked.ask("/livez") for _ in range(200)))
    assert answers == [(503, b'{"status":"hangs","processes":[1]}')] * 200
    assert (await asked.ready())[1]["waiting_for"] == ["Process 1: It does not answer."]


async def test_who_has_no_descriptor_left_to_ask_with_says_of_nobody_that_it_hangs(meeting: MeetingPoint):
    """Its sibling may be well: that is no reason to start all again."""
    asked = Service(siblings(meeting)[0])
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, before[1]))
    try:
        answer = await asked.ask("/livez")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert answer == (200, b'{"status":"ok"}')


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs another user")
async def test_another_user_of_the_machine_is_told_nothing(meeting: MeetingPoint):
    told = asyncio.create_task(Service(siblings(meeting)[0]).probes.run())
    try:
        own, foreign = [await ask_as(user, f"{meeting.address}0") for user in (0, NOBODY)]
    finally:
        told.cancel()
        await asyncio.wait({told})
    assert (own, foreign) == (b"ok", b"")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs another user")
async def test_another_user_of_the_machine_is_not_believed(meeting: MeetingPoint):
    asked = Service(Sibling(0, 2, os.getpid(), -1, -1, -1, f"{meeting.address}foreign-"))
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(f"{meeting.address}foreign-1")
        async with saying(foreign, b"[]") as said:
            with as_user(NOBODY):
                foreign.listen()  # whose it is
            assert (await asked.ready())[0] == 503
            await asyncio.wait_for(said.wait(), 30)


@contextmanager
def as_user(number: int) -> Generator[None]:
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)


async def ask_as(user: int, address: str) -> bytes:
    """Whether that user's process is alive. Who connects is who it is at that moment."""
    peer = socket.socket(socket.AF_UNIX)
    peer.setblocking(False)
    with as_user(user):
        peer.connect(address)
    reader, writer = await asyncio.open_unix_connection(sock=peer)
    with closing(writer), suppress(ConnectionError):
        writer.write(b"live\n")
        return await reader.read()
    return b""
