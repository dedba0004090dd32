"""`juinie-standalone`: the embedded stack from a terminal. Errors are one line on stderr and a non-zero exit."""

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from juinie_standalone.cache import locked
from juinie_standalone.errors import StandaloneError, in_one_line
from juinie_standalone.follow import follow
from juinie_standalone.home import home_of_environment
from juinie_standalone.plan import DEV_KEY
from juinie_standalone.services import make_key
from juinie_standalone.stack import NAMES, Report, Stack

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def up() -> None:
    """Start the whole stack in the background; start again what is dead."""
    home = home_of_environment()
    with locked(home.lock):
        stack = Stack(home, keep_plan=False)
        print("Juinie is up." if stack.up() else "Juinie is up already.")
    print(f"  API     {stack.plan.api_url}    (documentation: {stack.plan.api_url}/docs)")
    print(f"  streams {stack.plan.stream_url}")
    print(f"  key     {DEV_KEY}")
    print(f"Next: `. {home.env_file}` sets these in your shell; then follow the walk in README.md.")


@app.command()
def down() -> None:
    """Stop everything; the data stay."""
    home = home_of_environment()
    with locked(home.lock):
        Stack(home).down()
    print(f"Juinie is down. Its data stay in {home.data}.")


@app.command()
def status() -> None:
    """Show what runs; exits with 1 unless all is healthy."""
    reports = Stack(home_of_environment()).reports()
    for report in reports:
        print(_in_words(report))
    if any(report.state != "healthy" for report in reports):
        raise typer.Exit(1)


@app.command()
def restart(service: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")]) -> None:
    """Stop one part, also a dead one, start it again, and wait until it is healthy."""
    home = home_of_environment()
    with locked(home.lock):
        stack = Stack(home)
        if not stack.is_known:
            raise StandaloneError("Juinie is down: `make up` starts it.")
        stack.restart(service)
    print(f"{service} is healthy.")


@app.command()
def logs(
    service: Annotated[str | None, typer.Argument(help="Only this one.")] = None,
    lines: Annotated[int, typer.Option(help="How many lines of the past.")] = 10,
    follow_on: Annotated[bool, typer.Option("--follow/--no-follow")] = True,
) -> None:
    """Show the logs, and go on as they grow until Ctrl-C."""
    home = home_of_environment()
    names = (service,) if service else NAMES
    follow({name: home.log(name) for name in names}, lines, go_on=follow_on)


@app.command()
def key(
    tenant: Annotated[str, typer.Option()] = "dev", scopes: Annotated[str, typer.Option()] = "read,write"
) -> None:
    """Make an API key; prints just the key."""
    stack = Stack(home_of_environment())
    if not stack.is_known:
        raise StandaloneError("Juinie is down: `make up` starts it.")
    raise typer.Exit(make_key(stack.plan.service_environment(), tenant, scopes))


def _in_words(report: Report) -> str:
    pid = f"pid {report.pid}" if report.pid else ""
    port = f"port {report.port}" if report.state == "healthy" else ""
    return f"{report.name:<15} {report.state:<12} {pid:<12} {port}".rstrip()


def main() -> None:
    """The console script."""
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a shell in the background has it ignored
        signal.signal(number, _stop)
    try:
        app()
    except StandaloneError as error:
        sys.exit(f"juinie: {error}")
    except OSError as error:
        sys.exit(f"juinie: {in_one_line(error)}")


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Unwind like Ctrl-C does, so that a half-started stack is taken down again."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
