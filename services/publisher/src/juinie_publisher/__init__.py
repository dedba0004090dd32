"""Juinie's publisher: relays outbox rows to Kafka, in order, at least once."""
