"""Fuzzing both HTTP ports: bytes that are nearly requests, and what they may do to a service (nothing)."""
