"""A worker: claims runs of the agent `echo`, repeats their words one by one, and gives way when it has to.

    python examples/worker.py                          wait for runs, until Ctrl-C or SIGTERM
    python examples/worker.py --ask "so it goes"       create a run, do it, and end

Start two of them and kill one in the middle of a run: within its lease the other takes over. Whoever is told to stop
finishes its run first.
"""

import argparse
import asyncio
import os
import signal
import socket
from typing import Any
from uuid import uuid4

import httpx
from stack import find_stack

AGENT = "echo"
LEASE_SECONDS = 10
WAIT_SECONDS = 20
WORKER_ID = f"{socket.gethostname()}-{os.getpid()}"
CLAIMANT = {"worker_id": WORKER_ID, "lease_seconds": LEASE_SECONDS}


class Stop(Exception):
    """This run is not, or no longer, to be worked on. Says why."""


class Worker:
    """Does one run after the other. `api` is a client of the API with its key."""

    def __init__(self, api: httpx.AsyncClient, pace_seconds: float) -> None:
        self._api, self._pace_seconds = api, pace_seconds

    async def claim(self) -> dict[str, Any] | None:
        """A run and its lease; None when none came for a while."""
        claim = {"agents": [AGENT], "wait_seconds": WAIT_SECONDS, **CLAIMANT}
        return await self._post("/v1/claims", claim)

    async def create(self, text: str) -> dict[str, Any]:
        """A run of our own, that no other worker ever sees wait."""
        run = await self._post("/v1/runs", {"agent": AGENT, "input": {"text": text}, "claim": CLAIMANT})
        return {"run": run, "lease": run.pop("lease")}

    async def do(self, claimed: dict[str, Any]) -> None:
        """Work on a run until it is done, or is not to be worked on any more."""
        run, lease = claimed["run"], claimed["lease"]
        print(f"{run['run_id']} claimed, attempt {lease['attempt']}", flush=True)
        try:
            await self._under_lease(run, {"Juinie-Lease": lease["token"]})
            print(f"{run['run_id']} done", flush=True)
        except Stop as stopped:
            print(f"{run['run_id']} left: {stopped}", flush=True)

    async def _under_lease(self, run: dict[str, Any], headers: dict[str, str]) -> None:
        """Work and heartbeat side by side; what ends one of them ends both. The run is finished without a heartbeat beside it: its lease is
        over with it, and a finish may have to be sent twice.
        """
        path = f"/v1/runs/{run['run_id']}"
        working = asyncio.create_task(self._work(path, run["input"], headers))
        keeping = asyncio.create_task(self._keep(path, headers))
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            end = (working if working.done() else keeping).result()
        finally:
            for task in (working, keeping):
                task.cancel()
            await asyncio.gather(working, keeping, return_exceptions=True)
        await self._post(f"{path}/finish", end, headers)
        if end["status"] == "cancelled":
            raise Stop("it was cancelled")

    async def _keep(self, path: str, headers: dict[str, str]) -> Any:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            await self._post(f"{path}/heartbeat", {}, headers)

    async def _work(self, path: str, given: Any, headers: dict[str, str]) -> dict[str, Any]:
        """How the run is to be finished."""
        words = str(given["text"] if isinstance(given, dict) and "text" in given else given).split()
        for word in words:
            body = {"events": [{"type": "TEXT_MESSAGE_CONTENT", "data": {"delta": f"{word} "}}]}
            if (await self._post(f"{path}/events", body, headers))["cancel_requested"]:
                return {"status": "cancelled"}
            await asyncio.sleep(self._pace_seconds)
        return {"status": "success", "output": {"words": len(words)}}

    async def _post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        """Send until there is an answer, each time under the same key, so that nothing is stored twice.

        Raises:
            Stop: the lease is lost, or the run has ended.
        """
        headers = {"Idempotency-Key": str(uuid4()), **(headers or {})}
        while True:
            try:
                answer = await self._api.post(path, json=body, headers=headers)
            except httpx.TransportError:
                await asyncio.sleep(0.5)
                continue
            if answer.status_code in {429, 503}:
                await asyncio.sleep(float(answer.headers.get("Retry-After", 0.5)))
            elif answer.status_code == 409:
                raise Stop(answer.json()["code"])
            else:
                return answer.raise_for_status().json() if answer.content else None


async def claim_unless(stopping: asyncio.Event, worker: Worker) -> dict[str, Any] | None:
    """Wait for a run, but not once we are told to stop. Nobody takes a run for a client that has left."""
    claiming, stop = asyncio.create_task(worker.claim()), asyncio.create_task(stopping.wait())
    await asyncio.wait({claiming, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if claiming.done():
        return claiming.result()
    claiming.cancel()
    return None


async def main(text: str | None, pace_seconds: float) -> None:
    """Work until told to stop; with `text`, on that alone."""
    stopping, stack = asyncio.Event(), find_stack()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with stack.client(stack.api_url) as api:
        worker = Worker(api, pace_seconds)
        if text is not None:
            await worker.do(await worker.create(text))
            return
        print(f"{WORKER_ID} waits for runs of the agent {AGENT}", flush=True)
        while not stopping.is_set():
            if claimed := await claim_unless(stopping, worker):
                await worker.do(claimed)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="A worker that repeats the words of its runs.")
    arguments.add_argument("--ask", metavar="TEXT", help="create a run with this text, do it, and end")
    arguments.add_argument(
        "--pace", type=float, default=0.1, metavar="SECONDS", help="time between two words"
    )
    chosen = arguments.parse_args()
    asyncio.run(main(chosen.ask, chosen.pace))
