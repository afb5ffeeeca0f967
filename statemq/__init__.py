"""Consistent, durable state machines on Redis Streams: the public names, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemq.context import Context
from statemq.errors import (
    Cancelled,
    CommandError,
    DeclarationError,
    Fail,
    Failed,
    InvalidArguments,
    Pending,
    Reject,
    Rejected,
    StatemqError,
    StepFailed,
    Unknown,
    UsageError,
)
from statemq.machine import ANY, Command, Machine, query, transition
from statemq.records import Instance, Outcome
from statemq.retry import Retry

if TYPE_CHECKING:
    from statemq.client import Client, Handle

__all__ = [
    "ANY",
    "Cancelled",
    "Client",
    "Command",
    "CommandError",
    "Context",
    "DeclarationError",
    "Fail",
    "Failed",
    "Handle",
    "Instance",
    "InvalidArguments",
    "Machine",
    "Outcome",
    "Pending",
    "Reject",
    "Rejected",
    "Retry",
    "StatemqError",
    "StepFailed",
    "Unknown",
    "UsageError",
    "query",
    "transition",
]


def __getattr__(name: str) -> Any:
    """``Client`` and ``Handle`` on first use: declaring a machine needs no Redis library."""
    if name in ("Client", "Handle"):
        from statemq import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
