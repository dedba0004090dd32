"""Where the outside comes in: HTTP, Kafka, readiness."""
