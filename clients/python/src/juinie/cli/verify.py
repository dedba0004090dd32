"""`juinie verify RUN_ID`: is this run whole in Postgres, in Kafka and on the stream?

Exit code 0: whole. 1: it is not. 2: that could not be found out.
"""

import asyncio
import logging
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from juinie.cli.options import ApiKey, ApiUrl, StreamUrl, database, servers
from juinie.cli.reach import reach
from juinie.client import Client
from juinie.errors import JuinieError
from juinie.verify.over_http import Log, check_log, check_stream, read_log
from juinie.verify.report import Report

NOT_WHOLE, NOT_KNOWN = 1, 2

Kafka = Annotated[
    str | None,
    typer.Option(
        envvar="JUINIE_KAFKA_BOOTSTRAP_SERVERS",
        help="`host:port` of Kafka, to look there too.",
        callback=servers,
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="JUINIE_DATABASE_URL", help="URL of Juinie's database, to look there too.", callback=database
    ),
]


def verify(
    run_id: Annotated[UUID, typer.Argument(help="The run.", show_default=False)],
    api_url: ApiUrl,
    stream_url: StreamUrl,
    api_key: ApiKey,
    kafka: Kafka = None,
    topic: Annotated[str, typer.Option(help="The topic of all run events.")] = "juinie.run-events",
    dead_letter_topic: Annotated[
        str, typer.Option(help="The topic of dead letters.")
    ] = "juinie.run-events.dead",
    database_url: DatabaseUrl = None,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="How long to wait for what is on its way.")
    ] = 30.0,
) -> None:
    """Is this run whole on the API's pages, on the stream, and, where they are named, in Kafka and in Postgres?"""
    report = Report()

    async def look() -> Log:
        async with Client(api_url, stream_url, api_key, retry_seconds=wait_seconds) as client:
            await reach(client)
            log = await read_log(client, str(run_id))
            check_log(log, report)
            await check_stream(client, log, report, wait_seconds)
            if kafka:
                await _look_on_kafka(kafka, topic, dead_letter_topic, log, report, wait_seconds)
            if database_url:
                await _look_in_postgres(database_url, log, report)
            return log

    try:
        log = asyncio.run(look())
    except KeyboardInterrupt:
        raise typer.Exit(NOT_KNOWN) from None
    except (JuinieError, OSError, _CannotLook) as error:
        Console(stderr=True).print(f"Cannot verify {run_id}: {error}", markup=False, highlight=False)
        raise typer.Exit(NOT_KNOWN) from error
    _print(log, report)
    raise typer.Exit(0 if report.whole else NOT_WHOLE)


class _CannotLook(Exception):
    """Kafka or Postgres cannot be asked."""


async def _look_on_kafka(
    servers: str, topic: str, dead_topic: str, log: Log, report: Report, wait_seconds: float
) -> None:
    try:
        from aiokafka.errors import KafkaError

        from juinie.verify.on_kafka import check_kafka
    except ImportError as error:
        raise _CannotLook("--kafka needs the extra: pip install 'juinie[kafka]'") from error
    # It logs every try of every connection: what there is to know is in the error.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        await check_kafka(servers, topic, log, report, wait_seconds, dead_topic)
    except KafkaError as error:
        raise _CannotLook(f"no answer from Kafka at {servers}: {type(error).__name__}") from error


async def _look_in_postgres(database_url: str, log: Log, report: Report) -> None:
    try:
        import asyncpg

        from juinie.verify.in_postgres import check_postgres
    except ImportError as error:
        raise _CannotLook("--database-url needs the extra: pip install 'juinie[postgres]'") from error
    try:
        await check_postgres(database_url, log, report)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise _CannotLook(f"no answer from Postgres: {type(error).__name__}") from error


def _print(log: Log, report: Report) -> None:
    table = Table("where", "what", "", title=f"run {log.run['run_id']}", title_justify="left")
    for check in report.checks:
        table.add_row(check.place, check.what, check.detail or "ok")
    console = Console()
    console.print(table)
    console.print("The run is whole." if report.whole else "The run is NOT whole.")
