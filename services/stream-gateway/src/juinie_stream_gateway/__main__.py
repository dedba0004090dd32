"""`juinie-stream-gateway`: serve until SIGTERM."""

import sys

from juinie_shared.domain.errors import Misconfigured
from juinie_shared.runtime.logs import configure_logs
from juinie_shared.runtime.process import run_process
from juinie_shared.runtime.settings import read_settings
from juinie_stream_gateway.app import serve
from juinie_stream_gateway.settings import Settings
from juinie_stream_gateway.telemetry import SERVICE

USAGE = "usage: juinie-stream-gateway [serve]"


def main() -> None:
    if sys.argv[1:] not in ([], ["serve"]):
        sys.exit(USAGE)
    try:
        settings = read_settings(Settings)
    except Misconfigured as error:
        sys.exit(error.message)
    configure_logs(SERVICE, settings.log_level, settings.log_format)
    run_process(lambda stopping: serve(settings, stopping))


if __name__ == "__main__":
    main()
