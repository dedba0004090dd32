"""`make demo`: an agent's run, written token by token, and a watcher that is dropped in the middle and comes back.

The agent is a real pydantic-ai agent with a tool (`weather_agent.py`); its events go into a run through the API
(`run_writer.py`). Beside it a watcher follows over SSE (`run_watcher.py`). Twice its connection is cut, once in the
middle of the tool call and once in the middle of the answer, while the agent goes on. In the end it must have seen
every event once, in order; the exit code says whether it has.
"""

import argparse
import asyncio
import sys

import httpx
from rich.console import Console
from rich.live import Live
from run_watcher import RunWatcher
from run_writer import RunWriter
from screen import Screen
from serve_page import PageServer, watch_link
from stack import Stack, find_stack
from weather_agent import QUESTION, events, weather_agent

CUTS = ((18, 12), (80, 40))
"""After which event the watcher is cut off, and how many more the agent writes before it is back."""


async def work(writer: RunWriter, screen: Screen, pace_seconds: float) -> str:
    """Let the agent work; every event goes into the run as it comes. Its answer, as pydantic-ai has it."""
    async for event_type, data in events(weather_agent(pace_seconds)):
        writer.emit(event_type, data)
        screen.agent.add(event_type, data)
        screen.written = f"{writer.emitted} events in {writer.appends} appends"
    answer = screen.agent.text.plain
    await writer.finish(output={"text": answer})
    screen.written += ", finished"
    return answer


async def watch(watcher: RunWatcher, writer: RunWriter, working: asyncio.Task[str]) -> None:
    """Follow the run to its end, through every cut."""
    for cut_after, missed in CUTS:
        await watcher.follow(until=lambda seq=cut_after: watcher.after_seq >= seq)
        back_at = watcher.after_seq + missed
        while writer.last_seq < back_at and not working.done():
            await asyncio.sleep(0.02)
    await watcher.follow()


async def demo(stack: Stack, pace_seconds: float, browser: bool, console: Console) -> bool:
    """Run it all. Whether the watcher saw every event once, in order, and the same text."""
    screen = Screen(QUESTION)
    async with (
        stack.client(stack.api_url) as api,
        stack.client(stack.stream_url) as streams,
        RunWriter(api, "weather", {"question": QUESTION}) as writer,
    ):
        if browser:
            await wait_for_browser(api, writer, console)
        watcher = RunWatcher(streams, f"/v1/runs/{writer.run_id}/stream", screen)
        with Live(screen, console=console, refresh_per_second=20):
            working = asyncio.create_task(work(writer, screen, pace_seconds))
            await watch(watcher, writer, working)
            answer = await working
        return report(console, watcher, writer.last_seq, same_text=screen.watcher.text.plain == answer)


async def wait_for_browser(api: httpx.AsyncClient, writer: RunWriter, console: Console) -> None:
    """Print the link at which a browser watches the same run, and wait until one does."""
    page = PageServer()
    link = await watch_link(api, page.url, writer.run_id, writer.stream_url)
    console.print(
        "Open this in a browser; the agent starts when the page is there:\n", link, "\n", soft_wrap=True
    )
    await page.opened()


def report(console: Console, watcher: RunWatcher, last_seq: int, *, same_text: bool) -> bool:
    """Say what held and what did not."""
    checks = {
        f"events 1 to {last_seq}, each once, in order, over {watcher.connections} connections": watcher.seqs
        == list(range(1, last_seq + 1)),
        "the end, once": watcher.ends == 1,
        "the text at the watcher is the agent's, to the letter": same_text,
    }
    console.print()
    for what, held in checks.items():
        console.print(
            f" [bold green]✓[/] {what}" if held else f" [bold red]✗ not so:[/] {what}", highlight=False
        )
    return all(checks.values())


def main() -> None:
    arguments = argparse.ArgumentParser(description="An agent's run, with a watcher that drops and returns.")
    arguments.add_argument(
        "--pace", type=float, default=0.035, metavar="SECONDS", help="time between two tokens"
    )
    arguments.add_argument("--browser", action="store_true", help="wait for a browser that watches too")
    chosen = arguments.parse_args()
    try:
        held = asyncio.run(demo(find_stack(), chosen.pace, chosen.browser, Console()))
    except httpx.ConnectError:
        raise SystemExit(
            "The stack does not answer: run `make up` first (`make status` shows what runs)."
        ) from None
    except httpx.HTTPStatusError as error:
        refusal = error.response
        raise SystemExit(
            f"The stack refused {refusal.url.path}: {refusal.status_code} {refusal.reason_phrase}."
        ) from None
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
