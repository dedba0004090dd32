"""The embedded stack: real Postgres and Kafka as child processes, and the three services."""
