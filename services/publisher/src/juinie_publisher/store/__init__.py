"""All SQL of the publisher, a module a noun: which lock and which index each statement counts on stands with it."""
