"""The three services, each the same to the tests."""

import pytest

from juinie_api import app as api
from juinie_api.settings import Settings as ApiSettings
from juinie_publisher import app as publisher
from juinie_publisher.settings import Settings as PublisherSettings
from juinie_stream_gateway import app as gateway
from juinie_stream_gateway.settings import Settings as GatewaySettings
from juinie_testkit.any_service import AnyService

SERVICES = (
    AnyService("api", api.serve, ApiSettings, "juinie_api", "JUINIE_API_PORT"),
    AnyService("publisher", publisher.serve, PublisherSettings, "juinie_publisher", "JUINIE_PUBLISHER_PORT"),
    AnyService(
        "stream-gateway", gateway.serve, GatewaySettings, "juinie_stream_gateway", "JUINIE_STREAM_PORT"
    ),
)


@pytest.fixture(params=SERVICES, ids=lambda service: service.name)
def service(request: pytest.FixtureRequest) -> AnyService:
    """Each of the services in turn."""
    return request.param


@pytest.fixture
def services() -> dict[str, AnyService]:
    """By name."""
    return {service.name: service for service in SERVICES}
