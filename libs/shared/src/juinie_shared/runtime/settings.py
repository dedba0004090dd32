"""Settings from the environment: standard names where there is a standard, `JUINIE_*` for the rest.

One frozen class a service, read once in its `__main__`. All that is missing or wrong is told in one message, by
name; a secret's value never appears.
"""

import os
import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from juinie_shared.domain.errors import Misconfigured

type Environment = Literal["dev", "test", "staging", "production"]

DEV_STREAM_TOKEN_KEYS = "dev=juinie-development-only-signing-key-0000"  # noqa: S105 - refused outside dev


def _bootstrap_servers(value: str) -> str:
    """`host:port`, comma-separated, as the Kafka client takes it."""
    servers = [part.strip() for part in value.split(",")]
    matches = [_SERVER.fullmatch(server) for server in servers]
    if not all(match and 0 < int(match[1]) < 65536 for match in matches):
        raise PydanticCustomError("bad_servers", "Is host:port, or several with commas between")
    return ",".join(servers)


_SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

type BootstrapServers = Annotated[str, AfterValidator(_bootstrap_servers)]
type TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]

_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]@:,/?#\s]*)(?::[0-9]{1,5})?"
_LIBPQ_URL = re.compile(rf"postgres(?:ql)?(?:\+\w+)?://(?:[^/?#\s]*@)?{_HOST}(?:,{_HOST})*(?:[/?][^#]*)?")


class ServiceSettings(BaseModel):
    """What every service takes."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, validate_default=True)

    database_url: SecretStr = Field(validation_alias="DATABASE_URL", description="Postgres, as a libpq URL.")
    env: Environment = Field(
        "production",
        validation_alias="JUINIE_ENV",
        description="`dev` allows the development key and localhost CORS.",
    )
    host: str = Field(
        "127.0.0.1", validation_alias="JUINIE_HOST", description="Address that the service listens on."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias="JUINIE_LOG_LEVEL", description="Least severe log line that is written."
    )
    log_format: Literal["json", "console"] = Field(
        "json",
        validation_alias="JUINIE_LOG_FORMAT",
        description="One JSON object a line, or text for people.",
    )
    drain_seconds: float = Field(
        6.0, ge=0, le=600, validation_alias="JUINIE_DRAIN_SECONDS",
        description="How long open requests may go on after SIGTERM.",
    )  # fmt: skip
    processes: int = Field(
        1, ge=1, le=256, validation_alias="JUINIE_PROCESSES",
        description="Processes of this service, which share its port. What is set for one process is each one's own: open streams and connections, memory, connections to Postgres. `serve --processes` goes before.",
    )  # fmt: skip

    @field_validator("database_url")
    @classmethod
    def _is_libpq_url(cls, value: SecretStr) -> SecretStr:
        """Seen to here, because what the driver says of a bad URL may hold a piece of the password."""
        if not _LIBPQ_URL.fullmatch(value.get_secret_value()):
            raise PydanticCustomError(
                "bad_url",
                "Is no libpq URL: postgresql://user:password@host:port/database, its / ? # @ inside as %2F %3F %23 %40",
            )
        return value


class EdgeSettings(ServiceSettings):
    """What the two services with a public HTTP port take besides."""

    cors_origins: tuple[str, ...] = Field(
        (), validation_alias="JUINIE_CORS_ORIGINS",
        description="Origins that browsers may call from, comma-separated. In dev, any port of localhost as well.",
    )  # fmt: skip
    last_call_seconds: float = Field(
        2.0, ge=0, le=600, validation_alias="JUINIE_LAST_CALL_SECONDS",
        description="How long the port stays open after SIGTERM, the service no longer ready: for balancers to notice. Part of the drain time.",
    )  # fmt: skip
    max_connections: int = Field(
        12_000, ge=1, validation_alias="JUINIE_MAX_CONNECTIONS",
        description="Connections open at once in this process, streams included; one more is closed as it comes. Fewer where the process may not have 256 descriptors more than that.",
    )  # fmt: skip
    stream_token_keys: SecretStr | None = Field(
        None, validate_default=True, validation_alias="JUINIE_STREAM_TOKEN_KEYS",
        description="`id=secret` pairs, comma-separated; the first signs stream tokens, all verify. At least 32 characters each. Required outside dev.",
    )  # fmt: skip

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @field_validator("stream_token_keys")
    @classmethod
    def _are_keys(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and info.data.get("env", "dev") == "dev":
            return SecretStr(DEV_STREAM_TOKEN_KEYS)
        pairs = _pairs(value.get_secret_value()) if value else []
        if not pairs or any(not name or len(secret) < 32 for name, _, secret in pairs):
            raise PydanticCustomError("bad_keys", "Give id=secret, the secret of at least 32 characters")
        if len({name for name, _, _ in pairs}) < len(pairs):
            raise PydanticCustomError("doubled_key", "Give each id once")
        return value

    def signing_keys(self) -> dict[str, str]:
        """The signing keys by id, the one that signs first."""
        text = self.stream_token_keys.get_secret_value() if self.stream_token_keys else ""
        return {name: secret for name, _, secret in _pairs(text)}


def _pairs(text: str) -> list[tuple[str, str, str]]:
    return [part.strip().partition("=") for part in text.split(",") if part.strip()]


def settings_of_command(arguments: Sequence[str]) -> dict[str, str] | None:
    """What `[serve [--processes N]]` chooses, for `read_settings`; None for any other command."""
    match [*arguments]:
        case [] | ["serve"]:
            return {}
        case ["serve", "--processes", processes]:
            return {"JUINIE_PROCESSES": processes}
        case ["serve", option] if option.startswith("--processes="):
            return {"JUINIE_PROCESSES": option.partition("=")[2]}
        case _:
            return None


def read_settings[S: ServiceSettings](cls: type[S], **chosen: object) -> S:
    """The settings that the environment holds; what is `chosen`, by its name there, goes before.

    Raises:
        Misconfigured: one message that names every setting that is missing or wrong, and shows no value.
    """
    names = (str(field.validation_alias) for field in cls.model_fields.values())
    given = {name: os.environ[name] for name in names if name in os.environ} | chosen
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(_spoken(cls, part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        )
        raise Misconfigured(f"Settings are missing or wrong: {faults}") from None


def _spoken(cls: type[ServiceSettings], part: str | int) -> str:
    """The environment's name of a field: pydantic calls it by ours where its default is at fault."""
    field = cls.model_fields.get(str(part))
    return str(field.validation_alias if field and field.validation_alias else part)
