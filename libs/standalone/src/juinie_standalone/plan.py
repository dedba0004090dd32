"""What is to run and where: read from the environment at a first `up`, kept for the commands that follow."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from juinie_standalone.errors import StandaloneError
from juinie_standalone.home import Home, write
from juinie_standalone.ports import HOST

DEV_KEY = "jn_dev_local_only"


@dataclass(frozen=True)
class Plan:
    """Ports and addresses of one stack. A port 0 is chosen at its first start."""

    api_port: int
    stream_port: int
    publisher_port: int
    postgres_port: int
    kafka_port: int
    database_url: str
    kafka_bootstrap_servers: str
    own_postgres: bool
    own_kafka: bool

    @property
    def api_url(self) -> str:
        return f"http://{HOST}:{self.api_port}"

    @property
    def stream_url(self) -> str:
        return f"http://{HOST}:{self.stream_port}"

    def service_environment(self) -> dict[str, str]:
        """The environment of the three services."""
        return {
            **os.environ,
            "DATABASE_URL": self.database_url,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap_servers,
            "JUINIE_ENV": "dev",
            "JUINIE_API_PORT": str(self.api_port),
            "JUINIE_STREAM_PORT": str(self.stream_port),
            "JUINIE_PUBLISHER_PORT": str(self.publisher_port),
            "JUINIE_STREAM_URL": self.stream_url,
        }

    def client_environment(self) -> dict[str, str]:
        """What a person or a script needs to use the stack."""
        return {
            "JUINIE_API_URL": self.api_url,
            "JUINIE_STREAM_URL": self.stream_url,
            "JUINIE_API_KEY": DEV_KEY,
            "JUINIE_DATABASE_URL": self.database_url,
            "JUINIE_KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap_servers,
        }

    def with_postgres(self, url: str, port: int) -> "Plan":
        return replace(self, database_url=url, postgres_port=port)

    def with_kafka(self, bootstrap: str, port: int) -> "Plan":
        return replace(self, kafka_bootstrap_servers=bootstrap, kafka_port=port)


def plan_of_environment(environment: Mapping[str, str]) -> Plan:
    """A plan for a stack of which nothing runs yet.

    Raises:
        StandaloneError: a port that is none.
    """
    database_url = environment.get("DATABASE_URL", "")
    bootstrap = environment.get("KAFKA_BOOTSTRAP_SERVERS", "")
    return Plan(
        api_port=_port(environment, "JUINIE_API_PORT", 8000),
        stream_port=_port(environment, "JUINIE_STREAM_PORT", 8001),
        publisher_port=_port(environment, "JUINIE_PUBLISHER_PORT", 8002),
        postgres_port=_port(environment, "JUINIE_POSTGRES_PORT", 0),
        kafka_port=_port(environment, "JUINIE_KAFKA_PORT", 0),
        database_url=database_url,
        kafka_bootstrap_servers=bootstrap,
        own_postgres=not database_url,
        own_kafka=not bootstrap,
    )


def _port(environment: Mapping[str, str], setting: str, default: int) -> int:
    text = environment.get(setting) or str(default)
    if not text.isdecimal() or int(text) > 65535:
        raise StandaloneError(f"{setting} is not a port: {text[:20]}")
    return int(text)


def save(plan: Plan, home: Home) -> None:
    write(_file(home), json.dumps(asdict(plan), indent=1))


def load(home: Home) -> Plan | None:
    """The plan of the stack that was started last; None when there was none."""
    try:
        return Plan(**json.loads(_file(home).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def forget_plan(home: Home) -> None:
    """After a stop: the next start goes by its own environment."""
    _file(home).unlink(missing_ok=True)


def _file(home: Home) -> Path:
    return home.directory / "state" / "plan.json"
