"""Juinie's words as plain Python: ids, seqs, statuses, event types, positions, errors. Imports nothing of ours."""
