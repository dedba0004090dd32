"""The command `juinie`."""

import typer

from juinie.cli.torture import torture
from juinie.cli.verify import verify

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None
)
app.command()(verify)
app.command()(torture)


@app.callback()
def juinie() -> None:
    """Look into a deployment of Juinie from outside."""


def main() -> None:
    """The entry point."""
    app()
