"""Where tests get Postgres and Kafka from: given by the environment, else Docker, else embedded."""
