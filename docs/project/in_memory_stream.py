"""A run stream in one process's memory, as many products begin: it numbers events, replays and resumes, until it stops.

Only for `persistence-before-after.md`, whose test runs it next to Juinie.   python in_memory_stream.py PORT
"""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import uvicorn
from fastapi import Body, FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse

app = FastAPI()
runs: dict[str, list[dict[str, Any]]] = {}
grown: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


def events_of(run_id: str) -> list[dict[str, Any]]:
    if run_id not in runs:
        raise HTTPException(404)
    return runs[run_id]


def add(run_id: str, events: list[dict[str, Any]]) -> dict[str, int]:
    stored = events_of(run_id)
    for event in events:
        stored.append({"seq": len(stored) + 1, "type": event["type"], "data": event.get("data")})
    grown.pop(run_id, asyncio.Event()).set()
    return {"last_seq": len(stored)}


@app.post("/v1/runs", status_code=201)
async def create() -> dict[str, object]:
    run_id = str(uuid4())
    runs[run_id] = []
    return {"run_id": run_id, **add(run_id, [{"type": "run.created"}])}


@app.get("/v1/runs/{run_id}")
async def show(run_id: str) -> dict[str, object]:
    return {"run_id": run_id, "last_seq": len(events_of(run_id))}


@app.post("/v1/runs/{run_id}/events", status_code=201)
async def append(run_id: str, events: list[dict[str, Any]] = Body(embed=True)) -> dict[str, int]:  # noqa: B008
    started = [] if len(events_of(run_id)) > 1 else [{"type": "run.started"}]
    return add(run_id, [*started, *events])


@app.post("/v1/runs/{run_id}/finish")
async def finish(run_id: str) -> dict[str, int]:
    return add(run_id, [{"type": "run.finished"}])


@app.get("/v1/runs/{run_id}/stream")
async def stream(run_id: str, last_event_id: int = Header(0)) -> StreamingResponse:
    stored = events_of(run_id)

    async def frames() -> AsyncGenerator[str]:
        sent = last_event_id
        while True:
            more = grown[run_id]
            for event in stored[sent:]:
                sent = event["seq"]
                yield f"data: {json.dumps(event)}\nid: {sent}\n\n"
                if event["type"] == "run.finished":
                    return
            await more.wait()

    return StreamingResponse(frames(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
