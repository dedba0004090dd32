"""A service whose calls, statements, steps and allocations are counted while it does something, again and again.

What one way of counting does to another is kept apart: first the service runs as fast as it does, and then it is traced.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from clocks import calls, is_stopped
from compiled import NotCompiled, compiled
from statements import Statements
from system_calls import NotTraced, SystemCalls
from world import World

from juinie_testkit.stack import ServiceProcess

REPEATS = 3
"""What a service does by the clock, and for others, falls on one or the other."""
_LOOK_SECONDS, _WAIT_SECONDS = 0.005, 60
_CALM_SECONDS, _REST_SECONDS = 0.3, 2.0

type Act = Callable[[], Awaitable[object]]
type Load = Callable[[], AbstractAsyncContextManager[Act]]
"""What is done again and again; around it stands what is not counted."""
type Probe = Callable[[], Awaitable[float]]


@dataclass(slots=True)
class Tools:
    """What not every machine has. `missing`: by the last word of a counter's name, why it is not counted here."""

    library: str = ""
    missing: dict[str, str] = field(default_factory=dict[str, str])

    def compile(self, into: Path) -> None:
        try:
            self.library = str(
                compiled("allocations.c", into, "-shared", "-fPIC", "-nostdlib", "-Wall", "-Werror")
            )
        except NotCompiled as error:
            self.missing |= dict.fromkeys(("allocations", "allocated_bytes"), str(error))

    async def try_to_trace(self, pid: int) -> None:
        try:
            async with SystemCalls(pid):
                pass
        except NotTraced as error:
            self.missing |= dict.fromkeys(
                ("polls", "system_calls"), f"no process can be traced here ({error})"
            )

    def lines(self) -> list[str]:
        """What to tell of what is missing."""
        reasons = dict.fromkeys(self.missing.values())
        return [
            f"NOT COUNTED: {', '.join(what for what in self.missing if self.missing[what] == why)}: {why}."
            for why in reasons
        ]

    @property
    def trace(self) -> bool:
        return "polls" not in self.missing


class Observed:
    """Numbers are given by what is counted: `round_trips`, `python_steps`, ..."""

    def __init__(self, service: ServiceProcess, statements: Statements, told: Path, tools: Tools) -> None:
        self.service, self.statements, self._told, self._tools = service, statements, told, tools
        self._serial = 0

    @property
    def pid(self) -> int:
        assert self.service.pid is not None
        return self.service.pid

    async def freeze(self) -> None:
        """Until `service.thaw()` it does nothing, and all that comes waits."""
        self.service.freeze()
        while not is_stopped(self.pid):
            await asyncio.sleep(_LOOK_SECONDS)

    async def counted(
        self, load: Load, probes: Mapping[str, Probe] | None = None, *, beyond_rest: bool = False
    ) -> Mapping[str, float]:
        """What `load` made it do: the least of some times, as all else that it does only adds; of what it keeps the median.
        `probes` count more. `beyond_rest`: without what it does in as much time anyway, and the median of all.
        """
        rest = await self._at_rest() if beyond_rest else {}
        times = [await self._one(load, self._undisturbed, rest, probes) for _ in range(REPEATS)]
        traced = [await self._one(load, self._traced, rest) for _ in range(REPEATS)]
        return {**_of(times, beyond_rest), **_of(traced, beyond_rest)}

    async def _at_rest(self) -> Mapping[str, float]:
        """In a second. What it keeps does not grow with time: a little that was let go of while it rested would weigh the more, the
        longer something takes on a busy machine.
        """
        rest: Load = lambda: nullcontext(lambda: asyncio.sleep(_REST_SECONDS))  # noqa: E731 - its type says what it is
        did = {**await self._one(rest, self._undisturbed, {}), **await self._one(rest, self._traced, {})}
        return {what: count / _REST_SECONDS for what, count in did.items() if what != "blocks_kept"}

    async def _one(
        self,
        load: Load,
        way: Callable[..., AbstractAsyncContextManager[dict[str, float]]],
        rest: Mapping[str, float],
        *more: object,
    ) -> Mapping[str, float]:
        async with load() as act:
            await asyncio.sleep(_CALM_SECONDS)
            async with way(*more) as did:
                began = time.perf_counter()
                await act()
                seconds = time.perf_counter() - began
        return {what: count - rest.get(what, 0) * seconds for what, count in did.items()}

    @asynccontextmanager
    async def _undisturbed(
        self, probes: Mapping[str, Probe] | None = None
    ) -> AsyncGenerator[dict[str, float]]:
        did = dict[str, float]()
        await self._signal(signal.SIGUSR1)
        before = await self._seen(probes or {})
        yield did
        after = await self._seen(probes or {})
        did |= {what: after[what] - before[what] for what in after}
        did |= await self._signal(signal.SIGUSR2)

    @asynccontextmanager
    async def _traced(self) -> AsyncGenerator[dict[str, float]]:
        did = dict[str, float]()
        await self._signal(signal.SIGRTMIN)
        if self._tools.trace:
            async with SystemCalls(self.pid) as traced:
                yield did
            did |= {"polls": traced.polls, "system_calls": traced.total}
        else:
            yield did
        did["python_steps"] = (await self._signal(signal.SIGUSR2))["python_steps"]

    async def _seen(self, probes: Mapping[str, Probe]) -> dict[str, float]:
        """Since it began."""
        did = calls(self.pid)
        return {
            "round_trips": self.statements.round_trips,
            "read_calls": did.reads,
            "write_calls": did.writes,
            "bytes_written": did.bytes_written,
            **{what: await probe() for what, probe in probes.items()},
        }

    async def _signal(self, number: int) -> Mapping[str, int]:
        self._serial += 1
        os.kill(self.pid, number)
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                if self._told.exists():
                    told: dict[str, int] = json.loads(self._told.read_text())
                    if told.pop("serial") == self._serial:
                        return told
                await asyncio.sleep(_LOOK_SECONDS)


def _of(times: Sequence[Mapping[str, float]], middle: bool) -> Mapping[str, float]:
    return {
        what: (median if middle or what == "blocks_kept" else min)(one[what] for one in times)
        for what in times[0]
    }


@asynccontextmanager
async def observed(
    world: World, tools: Tools, module: str, port_setting: str, settings: Mapping[str, str] | None = None
) -> AsyncGenerator[Observed]:
    """A service of its own, through the module `counted`."""
    told = world.directory / f"{module}.json"
    async with Statements(world.postgres.url) as statements:
        counted = {
            "COUNTED_MODULE": module,
            "COUNTED_FILE": str(told),
            "COUNTED_ALLOCATIONS": tools.library,
            "DATABASE_URL": statements.url,
            "PYTHONHASHSEED": "0",
        }
        service = await world.service("counted", port_setting, {**counted, **(settings or {})})
        assert service.pid is not None
        await tools.try_to_trace(service.pid)
        yield Observed(service, statements, told, tools)
        await service.stop()
