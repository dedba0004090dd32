"""`juinie-api`: serve, migrate, keys, tenants, openapi.

What a command needs is imported by it: making a key loads no web framework, and serving neither Alembic nor SQLAlchemy,
which take longer to load than all the rest.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from juinie_api.edges.quota_commands import (
    ActiveRuns,
    BytesPerMinute,
    EventsPerMinute,
    RequestsPerMinute,
    Streams,
    add_quota_commands,
    parsed,
)
from juinie_api.edges.tenant_commands import add_tenant_commands
from juinie_shared.db import keys as key_table
from juinie_shared.db.pool import Connection, connect, driver_errors
from juinie_shared.db.schema import check_schema, found_revision, known_revisions
from juinie_shared.db.sessions import require_sessions
from juinie_shared.domain.errors import JuinieError, Misconfigured
from juinie_shared.domain.quotas import KEY_QUOTAS
from juinie_shared.domain.runs import Scope
from juinie_shared.runtime.settings import ServiceSettings, read_settings

if TYPE_CHECKING:
    from juinie_api.settings import Settings
    from juinie_shared.runtime.process import Serve

cli = typer.Typer(help="Juinie's api.", add_completion=False, pretty_exceptions_enable=False)
keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
cli.add_typer(keys, name="keys")
tenants = typer.Typer(
    help="How long tenants keep finished runs, and what they may use up.", no_args_is_help=True
)
cli.add_typer(tenants, name="tenants")


def main() -> None:
    """The command line. What is wrong with the setup is told in one line."""
    try:
        cli()
    except JuinieError as error:
        print(error.message, file=sys.stderr)  # noqa: T201 - for the person at the terminal
        sys.exit(1)


def _name(text: str) -> str:
    if not 0 < len(text) <= 256 or not text.isprintable():
        raise typer.BadParameter("1 to 256 printable characters.")
    return text


@cli.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Without a command: serve."""
    if context.invoked_subcommand is None:
        serve()


@cli.command()
def serve(
    processes: Annotated[
        int | None, typer.Option(min=1, help="Share the port. Goes before JUINIE_PROCESSES.")
    ] = None,
) -> None:
    """Serve the API until SIGTERM."""
    from juinie_api.settings import Settings
    from juinie_api.telemetry import SERVICE
    from juinie_shared.runtime.process import run_service

    settings = read_settings(Settings, **({} if processes is None else {"JUINIE_PROCESSES": processes}))
    run_service(SERVICE, settings, settings.port, _application)


def _application() -> "Serve[Settings]":
    from juinie_api.app import serve

    return serve


@cli.command()
def migrate(
    to: Annotated[str, typer.Option(help="Revision to go to: up, or down to an older one.")] = "head",
) -> None:
    """Bring the schema up (in dev: with the development key). Several may start at once."""
    settings = read_settings(ServiceSettings)
    url = settings.database_url.get_secret_value()
    asyncio.run(_migrate(url, to))
    if settings.env == "dev" and to == "head":
        _with_connection(key_table.ensure_dev_key)


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Option(help="Who owns the key. Made when new.", callback=_name)],
    scopes: Annotated[str, typer.Option(help="read, write, admin: with commas between.")] = "read,write",
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Never, when absent.")
    ] = None,
    requests_per_minute: RequestsPerMinute = None,
    events_per_minute: EventsPerMinute = None,
    bytes_per_minute: BytesPerMinute = None,
    active_runs: ActiveRuns = None,
    streams: Streams = None,
) -> None:
    """Make a key and print it, once."""
    wanted = _scopes(scopes)
    given = (requests_per_minute, events_per_minute, bytes_per_minute, active_runs, streams)
    quotas, _ = parsed(dict(zip(KEY_QUOTAS, given, strict=True)))
    typer.echo(
        _with_connection(
            lambda connection: key_table.create_key(connection, tenant, wanted, expires_in_days, quotas)
        )
    )


@keys.command("list")
def list_keys() -> None:
    """List all keys, without their text."""
    for key in _with_connection(key_table.list_keys):
        state = (
            "revoked" if key.revoked_at else f"expires {_day(key.expires_at)}" if key.expires_at else "valid"
        )
        typer.echo(
            f"{key.key_id}  {key.tenant}  {','.join(key.scopes)}  made {_day(key.created_at)}  {state}"
        )


@keys.command("revoke")
def revoke_key(key_id: UUID) -> None:
    """Revoke a key. Felt everywhere within 60 s."""
    if not _with_connection(lambda connection: key_table.revoke_key(connection, key_id)):
        typer.echo("There is no key of this id.", err=True)
        raise typer.Exit(1)


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from juinie_api.edges.http import document

    typer.echo(json.dumps(document(), indent=2, ensure_ascii=False))


async def _migrate(url: str, to: str) -> None:
    from juinie_shared.db import migrate as migrations

    await require_sessions(url, "juinie-api-cli")
    if to in {"head", "heads"} or not await _is_older(url, to):
        await migrations.migrate(url, to)
    else:
        await migrations.downgrade(url, to)


async def _is_older(url: str, revision: str) -> bool:
    """Whether the schema is past this revision, so that the way to it leads down."""
    if revision == "base":
        return True
    connection = await connect(url, "juinie-api-cli")
    try:
        found = await found_revision(connection)
    finally:
        await connection.close(timeout=2)
    newest_first = known_revisions()
    if revision not in newest_first:
        raise Misconfigured(f"There is no such revision. Known: {', '.join(newest_first)}.")
    return found in newest_first and newest_first.index(revision) > newest_first.index(found)


def _scopes(text: str) -> list[Scope]:
    try:
        return [Scope(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter("read, write, admin: with commas between.", param_hint="--scopes") from error


def _with_connection[T](work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do it on a connection of its own, to a database whose schema is there."""

    async def run() -> T:
        url = read_settings(ServiceSettings).database_url.get_secret_value()
        connection = await connect(url, "juinie-api-cli")
        try:
            with driver_errors():
                await check_schema(connection)
                return await work(connection)
        finally:
            await connection.close(timeout=2)

    return asyncio.run(run())


add_quota_commands(tenants, keys, _with_connection)
add_tenant_commands(tenants, _with_connection)


def _day(moment: datetime) -> str:
    return moment.date().isoformat()


if __name__ == "__main__":
    main()
