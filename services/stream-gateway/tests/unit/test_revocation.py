"""A revoked key is refused everywhere within 60 s: promised in the protocol, 2.1, and kept by two numbers."""

from juinie_shared.runtime.keys import REMEMBER_SECONDS
from juinie_stream_gateway.settings import Settings

PROMISED_SECONDS = 60.0


def test_a_stream_opened_with_a_key_that_is_still_remembered_is_closed_in_time_too():
    check_seconds = Settings.model_fields["credential_check_seconds"].default

    assert 0 < REMEMBER_SECONDS + check_seconds < PROMISED_SECONDS
