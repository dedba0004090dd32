"""Faults that need nothing of the deployment (its lines are made bad here), and those that its owner brings as commands."""

import asyncio
import random
from collections.abc import Mapping, Sequence

from juinie.torture.proxy import BadLine, Mode
from juinie.torture.schedule import Act, Fault

_STORM_EVERY_SECONDS = 0.3


class HookFailed(Exception):
    """A command that injects or heals ended badly: what state the deployment is in is not known, so the torture ends."""


def line_faults(
    name: str, lines: Sequence[BadLine], chance: random.Random, to_client: bool = True
) -> list[Fault]:
    """What can go wrong on one way, on one of its lines at a time. `to_client`: answers come over it."""
    modes = (Mode.HANG, Mode.ONE_WAY, Mode.DELAY)
    return [
        *(_bad(f"{name}: {mode}", lines, mode, chance, to_client) for mode in modes),
        _bad(f"{name}: cut", lines, Mode.REFUSE, chance, to_client),
    ]


def storm(name: str, lines: Sequence[BadLine]) -> Fault:
    """All who are connected are cut off, again and again."""
    cutting: list[asyncio.Task[None]] = []

    async def cut_on() -> None:
        while True:
            for line in lines:
                line.cut()
            await asyncio.sleep(_STORM_EVERY_SECONDS)

    async def inject() -> None:
        cutting.append(asyncio.create_task(cut_on()))

    async def heal() -> None:
        cutting.pop().cancel()

    return Fault(f"{name}: storm of reconnects", "network", inject, heal, (2.0, 4.0))


def command_faults(inject: Mapping[str, str], heal: Mapping[str, str], seconds: float) -> list[Fault]:
    """Commands for a shell, by the fault's name."""
    return [
        Fault(name, name, _command(command), _command(heal.get(name, ":")), (seconds, seconds), True)
        for name, command in inject.items()
    ]


def _command(command: str) -> Act:
    async def run() -> None:
        process = await asyncio.create_subprocess_shell(command)
        if code := await process.wait():
            raise HookFailed(f"exit code {code} from: {command}")

    return run


def _bad(name: str, lines: Sequence[BadLine], mode: Mode, chance: random.Random, to_client: bool) -> Fault:
    chosen: list[BadLine] = []

    async def inject() -> None:
        line = chance.choice(lines)
        chosen.append(line)
        line.set(mode)
        if mode is Mode.REFUSE:
            line.cut()

    async def heal() -> None:
        while chosen:
            chosen.pop().set(Mode.GOOD)

    return Fault(name, "network", inject, heal, (1.0, 8.0), to_client)
