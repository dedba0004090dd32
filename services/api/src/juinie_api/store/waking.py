"""Who waits for what was committed, and how they are told."""

# By run_pkey, all runs that somebody waits for at once. A run that is gone has no row here.
READ_WAITED = """
    SELECT run_id, last_seq, status NOT IN ('pending', 'running') AS finished
    FROM run WHERE run_id = ANY ($1::uuid[]) AND deleted_at IS NULL
"""


def notify(channel: str) -> str:
    return f"NOTIFY {channel}"


def listen(channel: str) -> str:
    """Harmless to repeat: so it also shows whether a connection that listens still has its other end."""
    return f"LISTEN {channel}"
