"""Real servers as child processes; what `make up` and the test kit start."""

from juinie_standalone.servers.kafka import EmbeddedKafka
from juinie_standalone.servers.postgres import EmbeddedPostgres

__all__ = ["EmbeddedKafka", "EmbeddedPostgres"]
