"""Consistent, durable state machines on Redis Streams: the public names, and nothing else."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statemq.client.client import Client, Handle
    from statemq.context import Context
    from statemq.errors import (
        BacklogFull,
        Cancelled,
        CommandError,
        DeclarationError,
        Fail,
        Failed,
        IdempotencyConflict,
        InvalidArguments,
        InvalidKey,
        NamespaceLost,
        PartitionMismatch,
        Pending,
        RedisAway,
        Refused,
        Reject,
        Rejected,
        SchemaTooNew,
        ServerError,
        StatemqError,
        StepConflict,
        StepFailed,
        StreamExhausted,
        TooLarge,
        Unknown,
        UnknownMachine,
        UnknownTransition,
        UnsupportedServer,
        UsageError,
    )
    from statemq.machine import ANY, Command, Machine, Question, query, transition
    from statemq.records import Instance, Outcome
    from statemq.retry import Retry

__all__ = [
    "ANY",
    "BacklogFull",
    "Cancelled",
    "Client",
    "Command",
    "CommandError",
    "Context",
    "DeclarationError",
    "Fail",
    "Failed",
    "Handle",
    "IdempotencyConflict",
    "Instance",
    "InvalidArguments",
    "InvalidKey",
    "Machine",
    "NamespaceLost",
    "Outcome",
    "PartitionMismatch",
    "Pending",
    "Question",
    "RedisAway",
    "Refused",
    "Reject",
    "Rejected",
    "Retry",
    "SchemaTooNew",
    "ServerError",
    "StatemqError",
    "StepConflict",
    "StepFailed",
    "StreamExhausted",
    "TooLarge",
    "Unknown",
    "UnknownMachine",
    "UnknownTransition",
    "UnsupportedServer",
    "UsageError",
    "query",
    "transition",
]


_HOMES = {
    "client.client": ("Client", "Handle"),
    "context": ("Context",),
    "machine": ("ANY", "Command", "Machine", "Question", "query", "transition"),
    "records": ("Instance", "Outcome"),
    "retry": ("Retry",),
}
"""Where the names are, but for those of ``errors``."""


def __getattr__(name: str) -> Any:
    """Each name, and each module, on first use: declaring a machine needs no Redis library, and ``statemq --help`` next to nothing."""
    if name in __all__:
        home = next((module for module, names in _HOMES.items() if name in names), "errors")
        value = globals()[name] = getattr(import_module(f"statemq.{home}"), name)
        return value
    if not name.startswith("_") and find_spec(f"statemq.{name}") is not None:
        return import_module(f"statemq.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
