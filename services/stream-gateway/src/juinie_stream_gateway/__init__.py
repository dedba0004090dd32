"""Juinie's stream gateway: serves a run's events over SSE, live and from the log."""
