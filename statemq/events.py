"""The one observability hook: the flow emits events, listeners turn them into log lines, metrics, spans.

Two kinds of ears: ``listeners`` hear what is out of the ordinary (recoveries, retries, failures, takeovers), ``followers``
the ordinary course of each command. Hot places test the list before they build an event, so an event that nobody hears costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """``machine`` and ``partition`` say where; past tense says what."""

    machine: str = ""
    partition: int = -1


class CommandEvent(Event, frozen=True, kw_only=True):
    id: str
    key: str
    transition: str


class Started(CommandEvent, frozen=True, kw_only=True):
    """An attempt begins. ``crashes``: how often an owner died during this command; ``recorded``: steps it need not run again."""

    attempt: int
    crashes: int = 0
    recorded: int = 0


class Recorded(CommandEvent, frozen=True, kw_only=True):
    step: str
    took_ms: int


class Waits(CommandEvent, frozen=True, kw_only=True):
    """The command sleeps or backs off; ``left``: it has left memory until then."""

    until_ms: int
    left: bool


class Retried(CommandEvent, frozen=True, kw_only=True):
    """An attempt failed and another one follows."""

    attempt: int
    error: str
    wait_ms: int


class Ended(CommandEvent, frozen=True, kw_only=True):
    """The command was committed, ``took_ms`` after it began. ``steps``: name and duration (ms) of those run in this attempt."""

    outcome: str
    source: str = ""
    target: str = ""
    reason: str = ""
    attempts: int = 1
    took_ms: int = 0
    steps: tuple[tuple[str, int], ...] = ()


class Acquired(Event, frozen=True, kw_only=True):
    """``taken_from``: the owner that fell silent or whose deadline passed; empty for a free one. ``reclaimed``: commands in progress."""

    taken_from: str = ""
    crashed: bool = False
    reclaimed: int = 0


class TookOver(Event, frozen=True, kw_only=True):
    """What ``taken_from`` held of a machine was acquired: so many partitions, in which so many commands were in progress."""

    taken_from: str
    crashed: bool
    partitions: int
    reclaimed: int


class Released(Event, frozen=True, kw_only=True):
    pass


class Fenced(Event, frozen=True, kw_only=True):
    """The tenure ended under the worker: another owner, a store set back, or a damaged key."""

    why: str


class Warned(Event, frozen=True, kw_only=True):
    """Something an operator should know."""

    text: str


class Failing(Event, frozen=True, kw_only=True):
    """Something is broken and needs somebody."""

    text: str


listeners: list[Callable[[Event], None]] = []
followers: list[Callable[[Event], None]] = []


def emit(event: Event) -> None:
    """Something out of the ordinary."""
    for listen in listeners:
        listen(event)


def follow(event: Event) -> None:
    """The ordinary course of a command."""
    for listen in followers:
        listen(event)
