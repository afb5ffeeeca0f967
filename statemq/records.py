"""What crosses the edge of store/: frozen records, decoded once."""

from __future__ import annotations

from typing import Any, Generic

import msgspec
from typing_extensions import TypeVar

Data = TypeVar("Data", default=Any)


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a command ended; the JSON of ``T:outcomes``.

    ``outcome``: completed, rejected, failed or cancelled. ``result`` is set for completed, ``reason`` and
    ``code`` for the others. ``state`` and ``version`` are the instance's after it. Times in ms.
    """

    id: str
    outcome: str
    key: str = ""
    transition: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    reason: str = ""
    code: str = ""
    error: str = ""
    """The exception's type, for failed ones."""
    state: str = ""
    version: int = 0
    attempts: int = 1
    allowed: list[str] = []
    """Rejected ones: the transitions the state allows now."""
    at: int = 0
    """When it ended, by Redis time."""


class Instance(msgspec.Struct, Generic[Data], frozen=True):
    """A committed snapshot. ``exists`` is false for a key that no command has changed yet."""

    machine: str
    key: str
    state: str
    version: int = 0
    data: Data = None  # type: ignore[assignment]  # of a machine without data
    """The class's data, where the class was given; else decoded JSON: a dict. None when the machine has no data."""
    exists: bool = False
    paused: bool = False
    entered: int = 0
    """ms: since when it is in this state. A transition that enters the state it is in begins a new visit, but does not change this."""
    updated: int = 0
    """ms; 0 if never."""
    visit: int = 0
    """The version at which the present visit of the state began."""


class Listed(msgspec.Struct, frozen=True):
    """A row of ``list``: an instance, since when (ms) it is in its state, whatever visits of it there were, and whether it is paused."""

    key: str
    state: str
    since: int
    paused: bool = False
    declared: bool = True
    """False: the version of the class that was declared last does not have this state."""


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """A journal record as people see it."""

    name: str
    result: Any = None
    error: str = ""
    at: int = 0
    took_ms: int = 0


class StepRetry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step that has failed and is tried again: how often so far, its last error, since when it fails and when it is tried next (ms)."""

    name: str
    tries: int
    error: str = ""
    since: int = 0
    due: int = 0


class CommandStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """``show ID``. ``status``: queued, running, waiting, delayed, completed, rejected, failed, cancelled."""

    id: str
    status: str
    machine: str = ""
    key: str = ""
    transition: str = ""
    args: Any = None
    entry: str = ""
    attempts: int = 0
    error: str = ""
    """The last attempt's error while it is retried or paused, or why no worker's code takes it."""
    due: int = 0
    """ms: when a waiting or delayed command goes on."""
    paused: str = ""
    """What is paused and keeps it waiting: ``order/o-1``, or the machine ``order``."""
    origin: str = ""
    """The command that failed first, if this is a retry of its dead letter."""
    worker: str = ""
    cancel_asked: bool = False
    steps: list[Step] = []
    """As many as about 1 MiB of the journal holds."""
    retrying: list[StepRetry] = []
    """Steps that have failed and are tried again."""
    behind: str = ""
    """Behind what it waits: ``slow, which sleeps until 14 Dec 10:00Z``."""
    outcome: Outcome | None = None


class Queued(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of ``queue``: a command that has not ended; ``where``: stream, inbox or timer.

    ``attempts`` have failed, the last one with ``error``; known of what runs or waits.
    """

    id: str
    key: str
    transition: str
    status: str
    where: str
    entry: str = ""
    args: Any = None
    due: int = 0
    attempts: int = 0
    error: str = ""
    retrying: list[StepRetry] = []
    """Of what runs or waits: steps that have failed and are tried again."""


class HistoryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    entry: str
    id: str
    key: str
    transition: str
    outcome: str
    source: str = ""
    target: str = ""
    version: int = 0
    attempts: int = 1
    worker: str = ""
    reason: str = ""
    at: int = 0
    partition: int = 0


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of ``failed list``. ``letter`` names it for retry and discard: ``<partition>/<entry id>``; ``args``, ``if_state``,
    ``if_version`` and ``trace`` are the command's as it was sent."""

    letter: str
    id: str
    key: str
    transition: str
    args: str = ""
    reason: str = ""
    error: str = ""
    traceback: str = ""
    attempts: int = 0
    at: int = 0
    if_state: str = ""
    if_version: str = ""
    trace: str = ""
    once: str = ""
    """The key of its idempotency record."""
    origin: str = ""
    """The command that failed first, whose retry this was; its retry has the same step keys."""
    unfit: str = ""
    """Why it cannot be retried; empty if it can."""


class Emptied(msgspec.Struct, frozen=True):
    """What became of a key's queue."""

    cancelled: int
    begun: list[str]
    """Ids of the commands that had begun; they go on."""


class AuditEntry(msgspec.Struct, frozen=True):
    """What somebody did to a machine: ``did`` is cancel, pause, resume, retry or discard; ``what`` an id, key or dead letter."""

    entry: str
    did: str
    what: str
    by: str
    at: int


class MachineInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    partitions: int
    initial: str
    states: list[str]
    transitions: list[str]
    queries: list[str] = []
    workers: int = 0
    waiting: int = 0
    """Commands that have not ended."""
    failed: int = 0
    paused: bool = False
    in_state: dict[str, int] = {}


class PartitionInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    number: int
    owner: str = ""
    token: str = ""
    lease_left_ms: int = 0
    """Negative when overdue."""
    waiting: int = 0
    stream: int = 0
    running: int = 0
    ready: int = 0
    timers: int = 0
    paused: bool = False


class WorkerInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    host: str = ""
    pid: int = 0
    started: int = 0
    seen: int = 0
    """ms, Redis time, of its last life sign."""
    live: bool = True
    concurrency: int = 0
    partitions: list[int] = []


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of ``can``."""

    allowed: bool
    reason: str = ""
    state: str = ""
    transitions: list[str] = []
    """What the state allows now."""
    guards: bool = True
    """False when guards could not be asked because the class is not imported here."""
    paused: str = ""
    """What is paused, so that whatever is sent waits until it is resumed: ``order/o-1``, or the machine ``order``."""
    behind: str = ""
    """Behind what it would wait: ``slow, which sleeps until 14 Dec 10:00Z``."""
