"""The fake log and the one in Postgres keep the same promises."""

import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.fakes.log import FakeLog
from juinie_testkit.stored_log import StoredLog
from juinie_testkit.suites.log_suite import LogSuite


class TestFakeLog(LogSuite):
    @pytest.fixture
    def log(self):
        return FakeLog()


class TestStoredLog(LogSuite):
    @pytest.fixture
    def log(self, pool: Pool):
        return StoredLog(pool)
