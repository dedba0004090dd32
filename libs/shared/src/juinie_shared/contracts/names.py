"""Names that two services or the outside share."""

RUN_EVENTS_TOPIC = "juinie.run-events"
"""Kafka topic of all run events, keyed by run_id."""

DEAD_LETTERS_TOPIC = "juinie.run-events.dead"

OUTBOX_CHANNEL = "juinie_outbox"
"""Postgres NOTIFY channel: outbox rows were committed. No payload: whoever wakes reads the table."""

DUTIES_CHANNEL = "juinie_duties"
"""Postgres NOTIFY channel: a publisher came, went, or gave something back, or an operator asked something of them. No
payload."""

PENDING_CHANNEL = "juinie_pending"
"""Postgres NOTIFY channel: runs became `pending`. No payload. Whoever gives workers their runs looks for them."""

DEV_TENANT = "dev"
DEV_API_KEY = "jn_dev_local_only"
"""Exists only where JUINIE_ENV=dev; every other environment refuses to start with it."""
