"""What Postgres has counted of the table `run` in this transaction, as columns that a test can take the difference of."""

RUNS_READ = """
    SELECT (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int FROM pg_stat_xact_user_tables WHERE relname = 'run'
"""
"""Rows of `run` that were read, through an index or not."""

RUNS_UPDATED = (
    "SELECT n_tup_upd AS all, n_tup_hot_upd AS hot FROM pg_stat_xact_user_tables WHERE relname = 'run'"
)
"""Rows of `run` that were updated: `all`, and `hot` without a new entry in any index."""
