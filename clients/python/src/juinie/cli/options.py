"""Options that commands share: a deployment's addresses and key, from the environment where they are absent."""

from typing import Annotated

import typer

ApiUrl = Annotated[str, typer.Option(envvar="JUINIE_API_URL", help="Where the API is.")]
StreamUrl = Annotated[str, typer.Option(envvar="JUINIE_STREAM_URL", help="Where the stream gateway is.")]
ApiKey = Annotated[
    str,
    typer.Option(
        envvar="JUINIE_API_KEY", help="An API key; better given by the environment.", show_default=False
    ),
]
