"""Juinie's gateway beside Centrifugo and Mercure: the same events to as many SSE watchers, by turns, and the same floor."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from crowd import OURS, Crowd
from fan_out import SETTINGS, Latencies, Sender, Shape, Source, delivering, floor, memory
from peer_hubs import TRIED, Hub, centrifugo, mercure
from peer_programs import Missing
from rounds import Measured, Side, by_turns
from world import World

from juinie_shared.domain.ids import RunId
from juinie_testkit.raw_stream import stream_request

type Told = Callable[[str], None]
type Way = AbstractAsyncContextManager[tuple[Hub, Sender]]


async def measure(
    world: World, shape: Shape, mercure_program: Path | None, rounds: int, told: Told
) -> Measured:
    """By turns: Juinie, Juinie again, the peers that can be had here, and the floor. A unit is a delivery."""
    runs = [RunId(run) for run in await world.runs(shape.runs)]
    peers = {"centrifugo": centrifugo(world, runs), "mercure": mercure(world, runs, mercure_program)}
    async with AsyncExitStack() as stack:
        beside = Beside(stack, runs, shape, told)
        await beside.add("juinie", _juinie(world, runs))
        beside.sides.append(replace(beside.sides[0], name="again"))
        for name, way in peers.items():
            await beside.add(name, way)
        beside.sides.append(await stack.enter_async_context(floor(world, shape)))
        return await beside.measured(rounds)


async def measure_settings(
    world: World, shape: Shape, mercure_program: Path | None, rounds: int, told: Told
) -> Measured:
    """The peers alone, by turns as each of several settings has them."""
    runs = [RunId(run) for run in await world.runs(shape.runs)]
    async with AsyncExitStack() as stack:
        beside = Beside(stack, runs, shape, told)
        for name, tuning in TRIED.items():
            await beside.add(f"centrifugo, {name}", centrifugo(world, runs, tuning))
        for name, tuning in TRIED.items():
            await beside.add(f"mercure, {name}", mercure(world, runs, mercure_program, tuning))
        return await beside.measured(rounds)


class Beside:
    """The ways of one run, as they come, each with watchers who stay until the end. What cannot be had is kept in mind."""

    def __init__(self, stack: AsyncExitStack, runs: Sequence[RunId], shape: Shape, told: Told) -> None:
        self._stack, self._runs, self._shape, self._told = stack, runs, shape, told
        self._facts, self._missing = dict[str, float](), list[str]()
        self.sides = list[Side]()

    async def add(self, name: str, way: Way) -> None:
        """A server and its watchers."""
        try:
            hub, sender = await self._stack.enter_async_context(way)
        except Missing as why:
            self._missing.append(f"{name} was not measured. {why}")
            return
        requests = [hub.request(run) for run in self._runs for _ in range(self._shape.watchers)]
        latencies = Latencies()
        crowd = Crowd(hub.port, requests, latencies.note, marks=hub.marks)
        empty = memory(hub.pid)
        seconds = await crowd.come()
        self._stack.push_async_callback(crowd.leave)
        self._told(f"{name}: {len(crowd)} watchers came in {seconds:.1f} s")
        self._facts[f"pss_bytes_a_watcher, {name}"] = (memory(hub.pid) - empty) / len(crowd)
        self.sides.append(Side(name, delivering(hub.pid, sender, crowd, self._shape, latencies)))

    async def measured(self, rounds: int) -> Measured:
        measured = await by_turns("delivery", self.sides, rounds, self._told)
        return replace(measured, facts=self._facts, missing=self._missing)


@asynccontextmanager
async def _juinie(world: World, runs: Sequence[RunId]) -> AsyncGenerator[tuple[Hub, Sender]]:
    gateway = await world.service("juinie_stream_gateway", "JUINIE_STREAM_PORT", SETTINGS)
    key = world.key.text
    async with Source(world, runs) as source:
        yield Hub(gateway.pid or 0, gateway.port, lambda run: stream_request(run, key, 0), OURS), source
