"""Postgres and Kafka as child processes, from the embedded stack of `juinie_standalone`, with throwaway data."""

from juinie_testkit.backing.session import CannotHave, Note


def start_postgres() -> Note:
    raise CannotHave("not there yet")


def start_kafka() -> Note:
    raise CannotHave("not there yet")


def stop_server(note: Note) -> None:
    raise NotImplementedError(note)


def kill_server(note: Note) -> None:
    raise NotImplementedError(note)


def restart_server(note: Note) -> None:
    raise NotImplementedError(note)


def remove_server(note: Note) -> None:
    raise NotImplementedError(note)
