"""`juinie-publisher` serves; `juinie-publisher asyncapi` prints the AsyncAPI document of the topic."""

import sys

from juinie_publisher.app import serve
from juinie_publisher.edges.application import asyncapi_document
from juinie_publisher.settings import Settings
from juinie_shared.domain.errors import Misconfigured
from juinie_shared.runtime.logs import configure_logs
from juinie_shared.runtime.process import run_process
from juinie_shared.runtime.settings import read_settings

USAGE = "usage: juinie-publisher [serve | asyncapi]"


def main() -> None:
    match sys.argv[1:]:
        case [] | ["serve"]:
            _serve()
        case ["asyncapi"]:
            sys.stdout.write(asyncapi_document())
        case _:
            sys.exit(USAGE)


def _serve() -> None:
    try:
        settings = read_settings(Settings)
    except Misconfigured as error:
        sys.exit(error.message)
    configure_logs("juinie-publisher", settings.log_level, settings.log_format)
    run_process(lambda stopping: serve(settings, stopping))


if __name__ == "__main__":
    main()
