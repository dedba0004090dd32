"""Stand-ins for unit tests. Each passes the same suite (`suites/`) as the real thing."""
