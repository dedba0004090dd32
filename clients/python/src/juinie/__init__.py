"""Juinie's Python client."""

from juinie.claims import Claim
from juinie.client import Client
from juinie.errors import (
    JuinieError,
    LeaseLost,
    NoAnswer,
    NotFound,
    Refused,
    RunFinished,
    RunFull,
    Unreadable,
)
from juinie.events import RunEvent

__all__ = [
    "Claim",
    "Client",
    "JuinieError",
    "LeaseLost",
    "NoAnswer",
    "NotFound",
    "Refused",
    "RunEvent",
    "RunFinished",
    "RunFull",
    "Unreadable",
]
