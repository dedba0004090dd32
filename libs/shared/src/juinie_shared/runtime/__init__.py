"""How every Juinie process runs: settings, logs, traces, metrics, HTTP serving, keys, start and stop."""
