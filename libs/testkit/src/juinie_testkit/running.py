"""A service inside the test's own event loop, over a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import httpx

from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.waits import StillMissing

_LOOK_EVERY_SECONDS = 0.02


class Serve[S](Protocol):
    """`app.serve` of a service."""

    def __call__(
        self, settings: S, stopping: asyncio.Event, on_started: Callable[[int], None], /
    ) -> Awaitable[None]: ...


class RunningService:
    """A service that serves. `stop` may be called once or never: `running` does it at the end."""

    def __init__(self, port: int, serving: asyncio.Task[None], stopping: asyncio.Event) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._serving = serving
        self._stopping = stopping

    @property
    def asked_to_stop(self) -> bool:
        return self._stopping.is_set()

    async def stop(self, timeout_seconds: float = 20) -> None:
        """Ask it to stop, and wait until it has."""
        self._stopping.set()
        await asyncio.wait_for(self._serving, timeout_seconds)

    async def until_ready(self, timeout_seconds: float = 30) -> None:
        """Wait for 200 on /readyz.

        Raises:
            StillMissing: it did not come; the message has what the service waits for.
        """
        answer = "nothing"
        async with httpx.AsyncClient(verify=NO_TLS, base_url=self.url, trust_env=False) as client:
            try:
                async with asyncio.timeout(timeout_seconds):
                    while not self._serving.done():
                        with contextlib.suppress(httpx.TransportError):
                            response = await client.get("/readyz")
                            if response.status_code == 200:
                                return
                            answer = response.text
                        await asyncio.sleep(_LOOK_EVERY_SECONDS)
            except TimeoutError as error:
                raise StillMissing(
                    f"Not ready after {timeout_seconds:g} s; /readyz says: {answer}"
                ) from error
        await self._serving  # raises what ended it
        raise StillMissing("The service ended before it was ready.")


@asynccontextmanager
async def running[S](
    serve: Serve[S], settings: S, wait_ready: bool = True, timeout_seconds: float = 30
) -> AsyncGenerator[RunningService]:
    """Run `serve(settings, stopping, on_started)`, whose port should be 0, and give it once it listens.

    With `wait_ready`, once it is ready too. Raises what the service raises.
    """
    stopping = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def served() -> None:
        await serve(settings, stopping, port.set_result)

    serving = asyncio.create_task(served())
    await asyncio.wait({serving, port}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    if not port.done():
        if serving.done():
            await serving
        serving.cancel()
        raise StillMissing(f"The service listened on no port within {timeout_seconds:g} s.")
    service = RunningService(port.result(), serving, stopping)
    try:
        if wait_ready:
            await service.until_ready(timeout_seconds)
        yield service
    finally:
        await service.stop()
