"""Is a run whole, wherever its events lie? The API's pages are the measure; stream, Kafka and Postgres are held to them."""
