"""For tests only: real backing servers, waits, factories, fakes and contract suites."""
