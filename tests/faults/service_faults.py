"""Services that are killed, frozen and stopped."""

import asyncio
import random

from deployment import MODULES, Deployment

from juinie.torture.hooks import HookFailed
from juinie.torture.schedule import Fault
from juinie_testkit.stack import ServiceProcess

AREA = "services"
_LEASE_SECONDS = 6
"""For how long a publisher has its shards: a frozen one has lost them when it wakes up."""


def service_faults(deployment: Deployment, chance: random.Random) -> list[Fault]:
    """Each kind of service, one of the two at a time; and all at once."""
    one_at_a_time = [
        fault
        for kind in MODULES
        for fault in (
            _Killed(deployment, chance, kind).fault(),
            _Frozen(deployment, chance, kind).fault(),
            _Stopped(deployment, chance, kind).fault(),
        )
    ]
    return [*one_at_a_time, _all_killed(deployment, chance)]


class _OneService:
    """A fault of one service at a time, chosen anew each time."""

    verb = ""
    seconds = (0.2, 3.0)
    holds_answers = False

    def __init__(self, deployment: Deployment, chance: random.Random, kind: str) -> None:
        self._deployment, self._chance, self._kind = deployment, chance, kind
        self._chosen: list[ServiceProcess] = []

    def fault(self) -> Fault:
        name = f"{self._kind} {self.verb}"
        return Fault(name, AREA, self._inject, self._heal, self.seconds, self.holds_answers)

    async def hurt(self, service: ServiceProcess) -> None:
        raise NotImplementedError

    async def _inject(self) -> None:
        service = self._chance.choice(self._deployment.services[self._kind])
        self._chosen.append(service)
        await self.hurt(service)

    async def _heal(self) -> None:
        while self._chosen:
            self._chosen.pop().launch()  # which wakes up one that is frozen


class _Killed(_OneService):
    verb = "killed"

    async def hurt(self, service: ServiceProcess) -> None:
        await service.kill()


class _Frozen(_OneService):
    verb = "frozen"
    seconds = (_LEASE_SECONDS + 2.0, _LEASE_SECONDS + 9.0)
    holds_answers = True

    async def hurt(self, service: ServiceProcess) -> None:
        service.freeze()


class _Stopped(_OneService):
    verb = "stopped"

    async def hurt(self, service: ServiceProcess) -> None:
        code = await service.stop()
        if code:
            raise HookFailed(f"{service.name} ended with {code} after SIGTERM:\n{service.tail()}")


def _all_killed(deployment: Deployment, chance: random.Random) -> Fault:
    async def inject() -> None:
        await asyncio.gather(*(service.kill() for service in deployment.all_services))

    async def heal() -> None:
        services = deployment.all_services
        for service in chance.sample(services, len(services)):
            service.launch()

    return Fault("all services killed", AREA, inject, heal, (0.2, 1.0))
