"""What a service says of itself in numbers."""

import httpx

from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.waits import eventually


async def metric(service_url: str, name: str) -> float:
    """A metric's value, 0 when there is none of this name. `name` has its labels as they are printed: `x{a="b"}`."""
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, timeout=30) as client:
        text = (await client.get(f"{service_url}/metrics")).text
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


async def until_metric(service_url: str, name: str, wanted: float, timeout_seconds: float = 30) -> None:
    """Wait until a metric has this value."""

    async def has() -> bool:
        return await metric(service_url, name) == wanted

    await eventually(has, timeout_seconds, f"{name} is {wanted:g}")
