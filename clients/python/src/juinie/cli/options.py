"""Options that commands share: a deployment's addresses and key, from the environment where they are absent.

What cannot be right is refused before anything is asked of anybody.
"""

from typing import Annotated
from urllib.parse import urlsplit

import httpx
import typer


def address(text: str) -> str:
    """An address such as http://127.0.0.1:8000, with a path where a proxy wants one.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        parts = urlsplit(text)
        port, _ = parts.port, httpx.URL(text)  # the one finds ports out of range, the other all else
    except (ValueError, httpx.InvalidURL) as error:
        raise typer.BadParameter(f"{text} is no address: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise typer.BadParameter(f"http://HOST:PORT or https://HOST, not {text}")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise typer.BadParameter(f"{text} is more than an address: leave out user, query and fragment")
    return text


def servers(text: str | None) -> str | None:
    """`host:port` of Kafka, or several with commas.

    Raises:
        typer.BadParameter: it is none.
    """
    for server in text.split(",") if text is not None else ():
        if not _port(f"//{server}"):
            raise typer.BadParameter(f"HOST:PORT, not {server}")
    return text


def database(text: str | None) -> str | None:
    """A URL of Postgres. Never repeated: there may be a password in it.

    Raises:
        typer.BadParameter: it is none.
    """
    if text is not None and (not text.startswith(("postgresql://", "postgres://")) or _port(text) == 0):
        raise typer.BadParameter("postgresql://USER@HOST:PORT/NAME is wanted")
    return text


def _port(url: str) -> int | None:
    """None where there is none, 0 where it is wrong."""
    try:
        return urlsplit(url).port
    except ValueError:
        return 0


def _header(text: str) -> str:
    """A key that can stand in a header. Never repeated."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise typer.BadParameter("an API key is printable ASCII without blanks")
    return text


ApiUrl = Annotated[
    str, typer.Option(envvar="JUINIE_API_URL", help="Where the API is.", callback=address, show_default=False)
]
StreamUrl = Annotated[
    str,
    typer.Option(
        envvar="JUINIE_STREAM_URL",
        help="Where the stream gateway is.",
        callback=address,
        show_default=False,
    ),
]
ApiKey = Annotated[
    str,
    typer.Option(
        envvar="JUINIE_API_KEY",
        help="An API key; better given by the environment.",
        callback=_header,
        show_default=False,
    ),
]
