"""For tests only: backing servers, seeds, watchers, waits, fakes, contract suites and golden bytes (a pytest plugin)."""
