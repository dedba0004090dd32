"""The publisher's outside: Kafka, Postgres' notifications, the FastStream application."""
