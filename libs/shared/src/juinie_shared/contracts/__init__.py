"""The bytes on which services meet: Kafka records, SSE frames, stream tokens, and the names of channels."""
