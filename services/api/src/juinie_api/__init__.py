"""Juinie's api: runs and run events are committed here, and read again."""
