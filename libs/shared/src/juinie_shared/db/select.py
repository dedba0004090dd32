"""Ordinary reads written with SQLModel, run on the one asyncpg pool that the load-bearing statements use too."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import dialect as _asyncpg_dialect
from sqlalchemy.sql import Executable
from sqlalchemy.sql.elements import ClauseElement

from juinie_shared.db.pool import Connection, Row

_DIALECT = _asyncpg_dialect()


def compile_statement(statement: Executable) -> tuple[str, list[Any]]:
    """The statement as asyncpg takes it: SQL with `$1`, and its parameters in order."""
    if not isinstance(statement, ClauseElement):
        raise TypeError(statement)
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values: Mapping[str, Any] = compiled.params or {}
    names: list[str] = getattr(compiled, "positiontup", None) or []
    return str(compiled), [values[name] for name in names]


async def fetch(connection: Connection, statement: Executable) -> list[Row]:
    sql, values = compile_statement(statement)
    return await connection.fetch(sql, *values)
