"""`juinie torture`: load and faults against a deployment that the caller names, and a checker of what it promised.

Exit code 0: nothing was found. 1: something was. 2: it could not be tried.
"""

import asyncio
import ipaddress
import itertools
import random
import secrets
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, cast
from urllib.parse import urlsplit, urlunsplit

import httpx
import typer
from rich.console import Console

from juinie.cli.options import ApiKey, ApiUrl, StreamUrl
from juinie.cli.reach import reach
from juinie.client import Client
from juinie.errors import JuinieError
from juinie.torture.answers import Answers
from juinie.torture.hooks import command_faults, line_faults, storm
from juinie.torture.proxy import BadLine
from juinie.torture.reconnects import only_reconnects
from juinie.torture.scene import Load, Scene
from juinie.torture.schedule import Episode, Fault
from juinie.torture.summary import Summary, added_up, doubts, faults_of, not_tried, table, told
from juinie.torture.torturing import torture as torture_it

FOUND, NOT_TRIED = 1, 2
_IN_THE_WAY = (JuinieError, OSError)

Commands = Annotated[
    list[str], typer.Option("--fault", help="NAME=COMMAND: a shell command that injects a fault of your own.")
]
Heals = Annotated[list[str], typer.Option("--heal", help="NAME=COMMAND: the command that ends it.")]


def torture(
    api_url: ApiUrl,
    stream_url: StreamUrl,
    api_key: ApiKey,
    seconds: Annotated[float, typer.Option(min=0, help="For how long.")] = 60.0,
    seed: Annotated[int | None, typer.Option(help="The order of faults; drawn when absent.")] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Events a second, over all runs.")] = 300.0,
    runs: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 6,
    watchers: Annotated[int, typer.Option(min=1, help="Watchers of each run.")] = 2,
    fault: Commands = [],  # noqa: B006 - typer reads it, nobody changes it
    heal: Heals = [],  # noqa: B006
    fault_seconds: Annotated[float, typer.Option(min=0, help="How long a fault of your own lasts.")] = 5.0,
    lines: Annotated[bool, typer.Option(help="Make the lines between here and there bad.")] = True,
    reconnect: Annotated[
        int, typer.Option("--reconnects", min=0, help="Instead: so many reconnects at random positions.")
    ] = 0,
    yes_this_deployment: Annotated[
        bool, typer.Option("--yes-this-deployment", help="Needed for one that is not on this machine.")
    ] = False,
) -> None:
    """Write, watch, break and check: does this deployment keep its promises? Creates runs, deletes some of them, and leaves the others there."""
    console, lined = Console(stderr=True), lines and not reconnect
    if not yes_this_deployment and not all(map(_is_here, (api_url, stream_url))):
        console.print("That deployment is not on this machine. If it may be tortured: --yes-this-deployment")
        raise typer.Exit(NOT_TRIED)
    injecting, healing = _named(fault), _named(heal)
    if missing := healing.keys() - injecting.keys():
        raise typer.BadParameter(f"--heal without its --fault: {', '.join(sorted(missing))}")
    if lined and not all(urlsplit(url).scheme == "http" for url in (api_url, stream_url)):
        raise typer.BadParameter("lines are made bad for http addresses only; leave them alone: --no-lines")
    seed = secrets.randbelow(10**6) if seed is None else seed
    load = Load(rate=rate, runs_at_once=runs, watchers=watchers)
    hooks = command_faults(injecting, healing, fault_seconds)
    console.print(f"seed {seed}", highlight=False)

    async def all_of_it() -> Summary:
        async with Client(api_url, stream_url, api_key) as client:
            await reach(client)
        answers = Answers()
        async with _lined(api_url, stream_url, api_key, lined, answers) as (client, bad_lines):
            scene = Scene(client, load, random.Random(seed), answers=answers)  # noqa: S311 - chance, not secrecy
            _stop_when_told(scene.stopping)
            if reconnect:
                return await only_reconnects(scene, reconnect, seed)
            return await torture_it(scene, [*hooks, *_built_in(bad_lines)], seed, seconds, _tell(console))

    try:
        found = _outcome(all_of_it())
    except asyncio.CancelledError:
        console.print("Broken off: what was begun is left as it is.")
        raise typer.Exit(NOT_TRIED) from None
    if isinstance(found, Exception):
        console.print(f"Cannot go on: {found}", markup=False, highlight=False)
        raise typer.Exit(NOT_TRIED)
    _report(found)
    raise typer.Exit(_code(found))


def _code(found: Summary) -> int:
    """A command of the caller's that failed is no fault of the deployment's."""
    if faults_of(found):
        return FOUND
    return NOT_TRIED if not_tried(found) else 0


def _outcome(torturing: Coroutine[Any, Any, Summary]) -> Summary | Exception:
    """The figures, or what was in the way."""
    try:
        return asyncio.run(torturing)
    except _IN_THE_WAY as error:
        return error
    except ExceptionGroup as group:
        first: Exception = group
        while isinstance(first, ExceptionGroup):
            first = cast("Exception", first.exceptions[0])
        if not isinstance(first, _IN_THE_WAY):
            raise
        return first


def _stop_when_told(stopping: asyncio.Event) -> None:
    """The first Ctrl-C ends it in good order, the second at once: faults are healed, runs stay open."""
    loop, torturing = asyncio.get_running_loop(), asyncio.current_task()
    told = itertools.count()

    def stop() -> None:
        if next(told) == 0:
            stopping.set()
        elif torturing:
            torturing.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


@asynccontextmanager
async def _lined(
    api_url: str, stream_url: str, api_key: str, lines: bool, answers: Answers
) -> AsyncGenerator[tuple[Client, dict[str, BadLine]]]:
    """A client, and the lines that it goes over, if there are to be any. Path and `Host` stay those of the addresses."""
    async with AsyncExitStack() as opened:
        bad_lines, urls, hosts = dict[str, BadLine](), [api_url, stream_url], dict[str, str]()
        for number, name in enumerate(("api", "stream") if lines else ()):
            parts = urlsplit(urls[number])
            line = BadLine(parts.hostname or "127.0.0.1", parts.port or 80)
            bad_lines[name] = await opened.enter_async_context(line)
            beginning = f"127.0.0.1:{line.port}"
            urls[number], hosts[beginning] = urlunsplit(parts._replace(netloc=beginning)), parts.netloc
        made = Client(urls[0], urls[1], api_key, transport=answers.transport())
        client = await opened.enter_async_context(made)

        async def keep_host(request: httpx.Request) -> None:
            request.headers["Host"] = hosts.get(request.headers["Host"], request.headers["Host"])

        client.http.event_hooks["request"].append(keep_host)
        yield client, bad_lines


def _built_in(bad_lines: dict[str, BadLine]) -> list[Fault]:
    which = random.Random(0)  # noqa: S311 - there is one line of each to choose from
    faults = [fault for name, line in bad_lines.items() for fault in line_faults(name, [line], which)]
    return [*faults, *([storm("watchers", [bad_lines["stream"]])] if bad_lines else [])]


def _tell(console: Console) -> Callable[[Episode], None]:
    return lambda episode: console.print(told(episode), markup=False, highlight=False)


def _report(found: Summary) -> None:
    console = Console()
    console.print(table(added_up([found]), "torture"))
    for line in (*found["left_out"], *found["first_violations"], *doubts(found)):
        console.print(line, markup=False, highlight=False)
    said = {0: "Nothing was found.", FOUND: "Something was FOUND.", NOT_TRIED: "It could not be tried."}
    console.print(said[_code(found)])


def _named(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=COMMAND, several times."""
    named = dict[str, str]()
    for pair in pairs:
        name, found, command = pair.partition("=")
        if not (name and found and command):
            raise typer.BadParameter(f"NAME=COMMAND, not {pair}")
        if name in named:
            raise typer.BadParameter(f"{name} twice")
        named[name] = command
    return named


def _is_here(url: str) -> bool:
    """The address is this machine's loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
