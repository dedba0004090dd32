"""Juinie beside its peers, in rounds by turns of one run. What a peer is, where it comes from and how it is set up is in the module
of its path.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peer_fan_out
import peer_relay
from append import Shape as Relayed
from fan_out import Shape as Delivered
from rounds import Measured
from world import World

type Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a round relays, and what it delivers. `mercure`: where that program is, if it is not on the path."""

    rounds: int
    relayed: Relayed
    delivered: Delivered
    mercure: Path | None


async def relay(wanted: Wanted, told: Told) -> Measured:
    async with World(with_kafka=True) as world:
        return await peer_relay.measure(world, wanted.relayed, wanted.rounds, told)


async def relay_settings(wanted: Wanted, told: Told) -> Measured:
    async with World(with_kafka=True) as world:
        return await peer_relay.measure_settings(world, wanted.relayed, wanted.rounds, told)


async def fan_out(wanted: Wanted, told: Told) -> Measured:
    async with World(with_kafka=True) as world:
        return await peer_fan_out.measure(world, wanted.delivered, wanted.mercure, wanted.rounds, told)


async def fan_out_settings(wanted: Wanted, told: Told) -> Measured:
    async with World(with_kafka=True) as world:
        return await peer_fan_out.measure_settings(
            world, wanted.delivered, wanted.mercure, wanted.rounds, told
        )


CASES: Mapping[str, Callable[[Wanted, Told], Coroutine[Any, Any, Measured]]] = {
    "relay": relay,
    "fan-out": fan_out,
    "relay-settings": relay_settings,
    "fan-out-settings": fan_out_settings,
}
