"""All SQL of the api, a module a noun, as named constants: which lock and which index each counts on stands above it.

Times are the database's `clock_timestamp()`: `now()` is the start of the transaction, before the wait for a lock.
"""
