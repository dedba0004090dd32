"""What the api's settings have to do with each other."""

import pytest

from juinie_api.settings import Settings
from juinie_shared.domain.errors import Misconfigured
from juinie_shared.runtime.settings import read_settings


def test_a_body_that_never_finds_room_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://a@b/c")
    monkeypatch.setenv("JUINIE_ENV", "dev")
    monkeypatch.setenv("JUINIE_MAX_REQUEST_BYTES", "1000")
    monkeypatch.setenv("JUINIE_MAX_UNANSWERED_BYTES", "2000")
    assert read_settings(Settings).max_unanswered_bytes == 2000
    monkeypatch.setenv("JUINIE_MAX_UNANSWERED_BYTES", "1999")
    with pytest.raises(Misconfigured, match="JUINIE_MAX_UNANSWERED_BYTES is twice JUINIE_MAX_REQUEST_BYTES"):
        read_settings(Settings)
