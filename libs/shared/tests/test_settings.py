"""Settings: all faults in one message, and no value in any."""

import pytest
from pydantic import Field

from juinie_shared.domain.errors import Misconfigured
from juinie_shared.runtime.settings import (
    BootstrapServers,
    EdgeSettings,
    ServiceSettings,
    TopicName,
    read_settings,
)

URL = "postgresql://juinie:hunter2hunter2@db/juinie"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("DATABASE_URL", "JUINIE_ENV", "JUINIE_HOST", "JUINIE_LOG_LEVEL", "JUINIE_STREAM_TOKEN_KEYS"):
        monkeypatch.delenv(name, raising=False)


def test_all_faults_are_told_in_one_message_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUINIE_ENV", "prod-hunter2")
    monkeypatch.setenv("JUINIE_DRAIN_SECONDS", "soon-hunter2")
    with pytest.raises(Misconfigured) as refused:
        read_settings(ServiceSettings)
    message = str(refused.value)
    assert "\n" not in message
    assert all(name in message for name in ("DATABASE_URL", "JUINIE_ENV", "JUINIE_DRAIN_SECONDS"))
    assert "hunter2" not in message


def test_missing_signing_keys_are_told_together_with_all_else():
    with pytest.raises(Misconfigured) as refused:
        read_settings(EdgeSettings)
    assert all(name in str(refused.value) for name in ("DATABASE_URL", "JUINIE_STREAM_TOKEN_KEYS"))


class OnKafka(ServiceSettings):
    kafka_bootstrap_servers: BootstrapServers = Field(validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    kafka_topic: TopicName = Field("t", validation_alias="JUINIE_KAFKA_TOPIC")


@pytest.mark.parametrize(
    "servers",
    ["", " ", ",", "a", "a:b", "a:0", "a:65536", "127.0.0.1:99999", "a:1,,b:2", "http://a:1", "a:1 b:2"],
)
def test_bad_kafka_servers_are_told(monkeypatch: pytest.MonkeyPatch, servers: str):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    with pytest.raises(Misconfigured, match="KAFKA_BOOTSTRAP_SERVERS"):
        read_settings(OnKafka)


def test_kafka_servers_are_taken_as_clients_write_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a.example:9092, b_1:9093,[::1]:9094")
    assert read_settings(OnKafka).kafka_bootstrap_servers == "a.example:9092,b_1:9093,[::1]:9094"


@pytest.mark.parametrize("topic", ["", "bad topic!", "a/b", "x" * 250])
def test_bad_topic_names_are_told(monkeypatch: pytest.MonkeyPatch, topic: str):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1")
    monkeypatch.setenv("JUINIE_KAFKA_TOPIC", topic)
    with pytest.raises(Misconfigured, match="JUINIE_KAFKA_TOPIC"):
        read_settings(OnKafka)


def test_environment_is_read_under_standard_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("JUINIE_CORS_ORIGINS", "https://a.example,https://b.example")
    monkeypatch.setenv("JUINIE_STREAM_TOKEN_KEYS", f"a={'n' * 32}")
    settings = read_settings(EdgeSettings)
    assert settings.database_url.get_secret_value() == URL
    assert settings.env == "production"
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_secrets_show_nowhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("JUINIE_STREAM_TOKEN_KEYS", "a=" + "hunter2" * 10)
    settings = read_settings(EdgeSettings)
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_settings_do_not_change(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    settings = read_settings(ServiceSettings)
    with pytest.raises(ValueError, match="frozen"):
        settings.env = "dev"


def test_first_signing_key_signs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("JUINIE_STREAM_TOKEN_KEYS", f"new={'n' * 32}, old={'o' * 32}=")
    assert list(read_settings(EdgeSettings).signing_keys().items()) == [
        ("new", "n" * 32),
        ("old", "o" * 32 + "="),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "no-equals-sign-but-quite-a-long-secret-hunter2",
        "a=hunter2",
        f"={'hunter2' * 9}",
        f"a={'n' * 32},b=hunter2",
        f"a={'hunter2' * 9},b={'n' * 32},a={'o' * 32}",
    ],
)
def test_signing_keys_that_cannot_sign_are_refused_without_showing_them(
    monkeypatch: pytest.MonkeyPatch, text: str
):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("JUINIE_STREAM_TOKEN_KEYS", text)
    with pytest.raises(Misconfigured, match="JUINIE_STREAM_TOKEN_KEYS") as refused:
        read_settings(EdgeSettings)
    assert "hunter2" not in str(refused.value)


def test_only_dev_goes_without_signing_keys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    with pytest.raises(Misconfigured, match="JUINIE_STREAM_TOKEN_KEYS"):
        read_settings(EdgeSettings)
    monkeypatch.setenv("JUINIE_ENV", "dev")
    assert list(read_settings(EdgeSettings).signing_keys()) == ["dev"]


def test_names_that_shells_and_platforms_set_for_themselves_are_none_of_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    for name, value in {"ENV": "/etc/profile", "HOST": "build-7", "LOG_LEVEL": "trace"}.items():
        monkeypatch.setenv(name, value)
    settings = read_settings(ServiceSettings)
    assert (settings.env, settings.host, settings.log_level) == ("production", "127.0.0.1", "info")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@db/juinie",
        "hunter2",
        "postgresql://u:hunter2@db:port/juinie",
        "postgresql://u:hunter2/more@db/juinie",
        "postgresql://u:hunter2#more@db/juinie",
        "postgresql://u:hunter2?more@db/juinie",
    ],
)
def test_a_bad_database_url_is_told_without_showing_it(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(Misconfigured, match="DATABASE_URL: Is no libpq URL") as refused:
        read_settings(ServiceSettings)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://db",
        "postgresql+asyncpg://u@db:5432/juinie?sslmode=require",
        "postgresql://u:p%2Fq@[::1]:5432/juinie",
        "postgresql://u:p@q@a:5432,b:5433/juinie",
        "postgresql:///juinie?host=/run/postgresql",
    ],
)
def test_every_spelling_of_a_libpq_url_is_taken(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("DATABASE_URL", url)
    assert read_settings(ServiceSettings).database_url.get_secret_value() == url
