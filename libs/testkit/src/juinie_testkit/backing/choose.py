"""One place that decides where a server comes from, and that says in one line what to do when there is none."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from juinie_testkit.backing import docker, embedded
from juinie_testkit.backing.ready import run_aside, wait_for_kafka, wait_for_postgres
from juinie_testkit.backing.session import BackingSession, CannotHave, Note, claim_dead_sessions

type Server = Literal["postgres", "kafka"]

FORCE = "JUINIE_TEST_BACKING"
SKIP = "JUINIE_SKIP_BACKED_TESTS"

GIVEN: Mapping[Server, tuple[str, ...]] = {
    "postgres": ("TEST_DATABASE_URL", "DATABASE_URL"),
    "kafka": ("TEST_KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
}

_GIVEN_SECONDS = 8


@dataclass(frozen=True, slots=True)
class Way:
    """One way to have a server: start it, or raise CannotHave."""

    name: str
    start: Callable[[], Note]


def have(session: BackingSession, server: Server, label: str | None = None, own: bool = False) -> Note:
    """The note of a server, found or started now if nobody has asked before.

    `label` tells several servers of one kind apart; `own`: it must be ours to stop, so none that is given.

    Raises:
        CannotHave: no way worked. The message is the one line that says what to do.
    """
    return session.once(label or server, lambda: _try_each(server, own))


def stop_all(session: BackingSession) -> None:
    """Stop what the session's notes name, and forget the session."""
    for note in session.notes().values():
        if control := control_of(note):
            control.remove_server(note)
    session.end()


def control_of(note: Note) -> ModuleType | None:
    """The module that stops, kills, freezes, restarts and removes this server; None for one that is not ours."""
    return {"docker": docker, "embedded": embedded}.get(note.get("kind", ""))


def _try_each(server: Server, own: bool) -> Note:
    for dead in claim_dead_sessions():
        stop_all(dead)
    failures: list[str] = []
    for way in _ways(server, own):
        try:
            return way.start()
        except CannotHave as error:
            failures.append(f"{way.name}: {error}")
    raise CannotHave(_how_to_fix(server, failures))


def _ways(server: Server, own: bool) -> list[Way]:
    starts = {
        "postgres": (docker.start_postgres, embedded.start_postgres),
        "kafka": (docker.start_kafka, embedded.start_kafka),
    }[server]
    ways = [Way("given", lambda: _given(server)), Way("docker", starts[0]), Way("embedded", starts[1])]
    forced = os.environ.get(FORCE)
    return [way for way in ways if (not forced or way.name == forced) and not (own and way.name == "given")]


def _given(server: Server) -> Note:
    address = next((os.environ[name] for name in GIVEN[server] if os.environ.get(name)), None)
    if address is None:
        raise CannotHave(f"{GIVEN[server][0]} is not set")
    if server == "postgres":
        run_aside(wait_for_postgres(address, _GIVEN_SECONDS))
        return {"kind": "given", "url": address}
    run_aside(wait_for_kafka(address, _GIVEN_SECONDS))
    return {"kind": "given", "servers": address}


def _how_to_fix(server: Server, failures: list[str]) -> str:
    return (
        f"No {server.capitalize()} for these tests ({'; '.join(failures) or f'{FORCE} leaves no way'}). "
        f"Set {GIVEN[server][0]}, or start Docker, or let the embedded one be installed (make install), "
        f"or skip such tests with {SKIP}=1."
    )
