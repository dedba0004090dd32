"""`tenants quotas` and `keys quotas`: show and set what a tenant or a key may use up."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

import typer

from juinie_shared.db.pool import Connection
from juinie_shared.db.quotas import set_key_quotas, set_tenant_quotas
from juinie_shared.domain.quotas import KEY_QUOTAS, LARGEST, TENANT_QUOTAS, Quota, Quotas

NONE, DEFAULT = "none", "default"

type OnConnection = Callable[[Callable[[Connection], Awaitable[Any]]], Any]
"""Does a piece of work on a connection of its own."""


def amount(text: str | None) -> str | None:
    """A number, `none` or `default`: as it was given, once it is known to be one of them."""
    if (
        text is None
        or text in {NONE, DEFAULT}
        or (text.isascii() and text.isdecimal() and 1 <= int(text) <= LARGEST)
    ):
        return text
    raise typer.BadParameter(f"1 to {LARGEST}, {NONE} (no limit) or {DEFAULT} (the service's setting).")


def _option(text: str) -> Any:
    return typer.Option(help=text, callback=amount, metavar="N|none|default")


RequestsPerMinute = Annotated[str | None, _option("Requests a minute.")]
EventsPerMinute = Annotated[str | None, _option("Events appended a minute.")]
BytesPerMinute = Annotated[str | None, _option("Bytes of bodies a minute.")]
ActiveRuns = Annotated[str | None, _option("Runs that have not ended.")]
EventsPerRun = Annotated[str | None, _option("Events of a run, removed ones too.")]
WaitingRequests = Annotated[str | None, _option("Requests that wait at once.")]
Streams = Annotated[str | None, _option("Streams open at once.")]
StreamsPerRun = Annotated[str | None, _option("Streams of one run open at once.")]


def add_quota_commands(tenants: typer.Typer, keys: typer.Typer, on_connection: OnConnection) -> None:
    """Give both groups their `quotas`."""

    @tenants.command("quotas")
    def tenant_quotas(
        name: str,
        requests_per_minute: RequestsPerMinute = None,
        events_per_minute: EventsPerMinute = None,
        bytes_per_minute: BytesPerMinute = None,
        active_runs: ActiveRuns = None,
        events_per_run: EventsPerRun = None,
        waiting_requests: WaitingRequests = None,
        streams: Streams = None,
        streams_per_run: StreamsPerRun = None,
    ) -> None:
        """Show a tenant's quotas, and change those that are given. Felt everywhere within 30 s."""
        given = (
            requests_per_minute, events_per_minute, bytes_per_minute, active_runs, events_per_run, waiting_requests,
            streams, streams_per_run,
        )  # fmt: skip
        quotas, defaulted = parsed(dict(zip(TENANT_QUOTAS, given, strict=True)))
        _show(
            on_connection(lambda connection: set_tenant_quotas(connection, name, quotas, defaulted)),
            TENANT_QUOTAS,
            "There is no tenant of this name.",
        )

    @keys.command("quotas")
    def key_quotas(
        key_id: UUID,
        requests_per_minute: RequestsPerMinute = None,
        events_per_minute: EventsPerMinute = None,
        bytes_per_minute: BytesPerMinute = None,
        active_runs: ActiveRuns = None,
        streams: Streams = None,
    ) -> None:
        """Show a key's quotas, and change those that are given. They hold besides its tenant's."""
        given = (requests_per_minute, events_per_minute, bytes_per_minute, active_runs, streams)
        quotas, defaulted = parsed(dict(zip(KEY_QUOTAS, given, strict=True)))
        _show(
            on_connection(lambda connection: set_key_quotas(connection, key_id, quotas, defaulted)),
            KEY_QUOTAS,
            "There is no key of this id.",
        )


def parsed(given: dict[Quota, str | None]) -> tuple[Quotas, list[str]]:
    """What was given on the command line: the quotas to set, and those that go back to their default."""
    named = {quota.value: text for quota, text in given.items() if text is not None}
    quotas = {name: None if text == NONE else int(text) for name, text in named.items() if text != DEFAULT}
    return quotas, [name for name, text in named.items() if text == DEFAULT]


def _show(quotas: Quotas | None, names: tuple[Quota, ...], missing: str) -> None:
    if quotas is None:
        typer.echo(missing, err=True)
        raise typer.Exit(1)
    for name in names:
        held = quotas.get(name, DEFAULT)
        typer.echo(f"{name.replace('_', '-')}  {NONE if held is None else held}")
