"""`juinie-publisher` serves; `juinie-publisher asyncapi` prints the AsyncAPI document of the topic.

What a command needs is imported by it: a parent of several processes loads no Kafka client.
"""

import sys

from juinie_publisher.settings import Settings
from juinie_shared.domain.errors import Misconfigured
from juinie_shared.runtime.process import Serve, run_service
from juinie_shared.runtime.settings import read_settings, settings_of_command

USAGE = "usage: juinie-publisher [serve [--processes N] | asyncapi]"


def main() -> None:
    chosen = settings_of_command(sys.argv[1:])
    if chosen is not None:
        _serve(chosen)
    elif sys.argv[1:] == ["asyncapi"]:
        from juinie_publisher.edges.application import asyncapi_document

        sys.stdout.write(asyncapi_document())
    else:
        sys.exit(USAGE)


def _serve(chosen: dict[str, str]) -> None:
    try:
        settings = read_settings(Settings, **chosen)
    except Misconfigured as error:
        sys.exit(error.message)
    run_service("juinie-publisher", settings, settings.port, _application)


def _application() -> Serve[Settings]:
    from juinie_publisher.app import serve

    return serve


if __name__ == "__main__":
    main()
