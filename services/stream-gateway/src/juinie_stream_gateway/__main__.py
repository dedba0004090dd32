"""`juinie-stream-gateway`: serve until SIGTERM.

The application is imported where it is served: a parent of several processes loads none of it.
"""

import sys

from juinie_shared.domain.errors import Misconfigured
from juinie_shared.runtime.process import Serve, run_service
from juinie_shared.runtime.settings import read_settings, settings_of_command
from juinie_stream_gateway.settings import Settings
from juinie_stream_gateway.telemetry import SERVICE

USAGE = "usage: juinie-stream-gateway [serve [--processes N]]"


def main() -> None:
    chosen = settings_of_command(sys.argv[1:])
    if chosen is None:
        sys.exit(USAGE)
    try:
        settings = read_settings(Settings, **chosen)
    except Misconfigured as error:
        sys.exit(error.message)
    run_service(SERVICE, settings, settings.port, _application)


def _application() -> Serve[Settings]:
    from juinie_stream_gateway.app import serve

    return serve


if __name__ == "__main__":
    main()
