"""A service as a test that is the same for all of them sees it: a name, its `serve`, and settings for any servers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

SIGNING_KEYS = "test=juinie-testkit-signing-key-0123456789"


@dataclass(frozen=True, slots=True)
class AnyService:
    """A service that a test may start as often as it likes. `module` and `port_setting` are for a process of its own."""

    name: str
    serve: Callable[..., Awaitable[None]]
    settings_class: Any
    module: str
    port_setting: str
    uses_kafka: bool = True

    def settings(
        self, database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, **changes: Any
    ) -> Any:
        """Its settings for these servers, of which it takes those that it knows."""
        values = {
            "database_url": database_url,
            "kafka_bootstrap_servers": kafka_bootstrap_servers,
            "kafka_topic": kafka_topic,
            "kafka_partitions": 1,
            "stream_token_keys": SIGNING_KEYS,
            "env": "test",
            "port": 0,
            "last_call_seconds": 0,
            **changes,
        }
        known = {name: value for name, value in values.items() if name in self.settings_class.model_fields}
        return self.settings_class.model_validate(known)
