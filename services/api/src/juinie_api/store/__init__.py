"""All SQL of the api, a module a noun, as named constants: which lock and which index each counts on stands above it.

What writes to a run locks its row FOR NO KEY UPDATE: one writer after the other, beside the KEY SHARE of REPUBLISH, which
only keeps the run from going. FOR UPDATE is for what hides or removes a run.

Times are the database's `clock_timestamp()`: `now()` is the start of the transaction, before the wait for a lock.
"""
