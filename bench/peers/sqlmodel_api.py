"""The append endpoint as most would write it first: FastAPI, a pydantic model, a SQLModel session, the same tables.

It does what an append must do (lock the run, give seqs, events, outbox row, commit, wake the publisher) and nothing else:
no limits, no leases, no idempotency, no metrics, and keys are asked for once.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import orjson
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import col, select, text
from sqlmodel.ext.asyncio.session import AsyncSession

from juinie_shared.db.keys import hash_key
from juinie_shared.db.pool import plain_url
from juinie_shared.db.tables import ApiKey, OutboxRow, Run, RunEvent


class NewEvent(BaseModel):
    """One event of an append."""

    type: str = Field(min_length=1, max_length=100)
    data: Any = None


class Append(BaseModel):
    """The body."""

    events: list[NewEvent] = Field(min_length=1, max_length=1000)


class Appended(BaseModel):
    """The answer."""

    first_seq: int
    last_seq: int
    status: str
    cancel_requested: bool


engine: AsyncEngine
known_keys: dict[str, UUID] = {}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """The engine lives as long as the process."""
    global engine
    url = plain_url(os.environ["DATABASE_URL"]).replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, pool_size=8, max_overflow=0)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def session() -> AsyncGenerator[AsyncSession]:
    """One for each request."""
    async with AsyncSession(engine, expire_on_commit=False) as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]


async def tenant_of(session: Session, authorization: Annotated[str, Header()]) -> UUID:
    """Who calls."""
    key = authorization.removeprefix("Bearer ")
    if key not in known_keys:
        found = (await session.exec(select(ApiKey).where(ApiKey.hash == hash_key(key)))).one_or_none()
        if found is None:
            raise HTTPException(401)
        known_keys[key] = found.tenant_id
    return known_keys[key]


@app.post("/v1/runs/{run_id}/events", status_code=201)
async def append(
    run_id: UUID, body: Append, session: Session, tenant_id: Annotated[UUID, Depends(tenant_of)]
) -> Appended:
    """Append events to a run."""
    found = await session.exec(
        select(Run)
        .where(Run.run_id == run_id, Run.tenant_id == tenant_id, col(Run.deleted_at).is_(None))
        .with_for_update()
    )
    run = found.one_or_none()
    if run is None:
        raise HTTPException(404)
    if run.status not in {"pending", "running"}:
        raise HTTPException(409)
    first_seq, size = run.last_seq + 1, 0
    for seq, event in enumerate(body.events, first_seq):
        data = orjson.dumps(event.data).decode()
        size += len(data)
        session.add(RunEvent(run_id=run_id, seq=seq, type=event.type, data=data))
    run.last_seq += len(body.events)
    run.status = "running"
    session.add(
        OutboxRow(shard=run.shard, run_id=run_id, first_seq=first_seq, last_seq=run.last_seq, bytes=size)
    )
    await session.commit()
    await session.exec(text("NOTIFY juinie_outbox"))  # pyright: ignore[reportCallIssue, reportArgumentType] - text is allowed
    await session.commit()
    return Appended(first_seq=first_seq, last_seq=run.last_seq, status=run.status, cancel_requested=False)


@app.get("/readyz")
async def ready() -> None:
    """It serves."""


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(os.environ["PEER_PORT"]), access_log=False, log_level="warning"
    )
