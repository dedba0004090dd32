"""How a download shows: a moving bar on a terminal, a plain line elsewhere; always on stderr."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

_console = Console(stderr=True)


def say(line: str) -> None:
    """One plain line for the person who waits."""
    _console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def spinning(what: str) -> Generator[None]:
    """Show that `what` is under way, where its size is not known."""
    if not _console.is_terminal:
        say(f"{what} …")
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=_console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield


@contextmanager
def counting(what: str, total: int) -> Generator[Callable[[], object]]:
    """Show how many of `total` files are there; the yielded function counts one more."""
    if not _console.is_terminal:
        say(f"{what} …")
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
