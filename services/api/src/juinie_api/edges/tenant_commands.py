"""`tenants list` and `tenants set`: show and set how long a tenant keeps what has finished."""

from datetime import timedelta
from typing import Annotated

import typer

from juinie_api.edges.quota_commands import OnConnection
from juinie_shared.db import tenants as tenant_table
from juinie_shared.domain.durations import format_duration, parse_duration
from juinie_shared.domain.errors import Misconfigured


def add_tenant_commands(tenants: typer.Typer, on_connection: OnConnection) -> None:
    """Give the group its `list` and `set`."""

    @tenants.command("list")
    def list_tenants() -> None:
        """List all tenants, and how long each keeps what has finished."""
        for tenant in on_connection(tenant_table.list_tenants):
            typer.echo(f"{tenant.name}  {_told(tenant.kept)}  made {tenant.created_at.date().isoformat()}")

    @tenants.command("set")
    def set_tenant(
        name: str,
        events_after: Annotated[
            str | None,
            typer.Option(
                help="Remove the events of a run so long after its end: 90d, 12h, 30m, 45s, or never."
            ),
        ] = None,
        runs_after: Annotated[
            str | None, typer.Option(help="Remove the run itself so long after its end, or never.")
        ] = None,
    ) -> None:
        """Set how long a tenant keeps finished runs. What is not named stays as it is."""
        events, runs = _wish(events_after, "--events-after"), _wish(runs_after, "--runs-after")
        if events is None and runs is None:
            raise Misconfigured("Nothing to set: --events-after, --runs-after or both.")
        kept = on_connection(lambda connection: tenant_table.set_retention(connection, name, events, runs))
        typer.echo(f"{name}  {_told(kept)}")


def _wish(text: str | None, option: str) -> tenant_table.Wish | None:
    if text is None:
        return None
    after = parse_duration(text)
    if after is None and text != "never":
        raise Misconfigured(
            f"{option} takes a number and d, h, m or s, such as 90d (at most 36500d), or never."
        )
    return tenant_table.Wish(after)


def _told(kept: tenant_table.KeptFor) -> str:
    return f"events {_time(kept.events_after)}  runs {_time(kept.runs_after)}"


def _time(after: timedelta | None) -> str:
    return f"after {format_duration(after)}" if after else "for ever"
