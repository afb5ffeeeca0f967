"""What a partition and its lanes tell (``events``). Each is built only if somebody listens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from statemq import events
from statemq.store.commands import Queued
from statemq.store.commit import Ended

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt
    from statemq.worker.partition import Partition


def _of(p: Partition, c: Queued) -> dict[str, Any]:
    return {"machine": p.spec.name, "partition": p.keys.number, "id": c.id, "key": c.key, "transition": c.transition}


def started(p: Partition, c: Queued, recorded: int) -> None:
    """An attempt begins; one that goes on from an earlier attempt or owner is out of the ordinary."""
    again = c.attempts or c.crashes or recorded
    if events.listeners if again else events.followers:
        event = events.Started(**_of(p, c), attempt=c.attempts + 1, crashes=c.crashes, recorded=recorded)
        (events.emit if again else events.follow)(event)


def recorded(p: Partition, c: Queued, step: str, took_ms: int) -> None:
    if events.followers:
        events.follow(events.Recorded(**_of(p, c), step=step, took_ms=took_ms))


def waits(p: Partition, c: Queued, until_ms: int, *, left: bool) -> None:
    if events.followers:
        events.follow(events.Waits(**_of(p, c), until_ms=until_ms, left=left))


def retried(p: Partition, c: Queued, error: str, wait_ms: int) -> None:
    if events.listeners:
        events.emit(events.Retried(**_of(p, c), attempt=c.attempts, error=error[:500], wait_ms=wait_ms))


def step_retried(p: Partition, c: Queued, step: str, tries: int, error: str, wait_ms: int) -> None:
    if events.listeners:
        what = _of(p, c) | {"transition": f"{c.transition} step {step}"}
        events.emit(events.Retried(**what, attempt=tries, error=error[:500], wait_ms=wait_ms))


def began_ms(attempt: Attempt) -> int:
    """When its command began, in whichever attempt and worker; as far as a record says so."""
    return int(attempt.command.journal.get("@started", attempt.began_ms))


def ended(p: Partition, e: Ended, attempt: Attempt | None) -> None:
    """The command is committed; after a retry or a crash that is news."""
    unusual = e.attempts > 1 or e.command.crashes > 0
    if not (events.followers or (events.listeners and unusual)):
        return
    steps, took = ((), 0) if attempt is None else (tuple(attempt.ran), p.now_ms() - began_ms(attempt))
    reason = msgspec.json.decode(e.json).get("reason", "") if e.outcome != "completed" else ""
    event = events.Ended(
        **_of(p, e.command), outcome=e.outcome, source=e.source or p.spec.initial, target=e.target, reason=reason,
        attempts=e.attempts, took_ms=took, steps=steps,
    )  # fmt: skip
    (events.emit if unusual else events.follow)(event)


def buried(p: Partition, c: Queued, state: str, reason: str) -> None:
    if events.listeners:
        events.emit(events.Ended(**_of(p, c), outcome="failed", source=state, reason=reason, attempts=c.attempts + 1))


def warned(p: Partition, text: str) -> None:
    events.emit(events.Warned(machine=p.spec.name, partition=p.keys.number, text=text))


def failing(p: Partition, text: str) -> None:
    events.emit(events.Failing(machine=p.spec.name, partition=p.keys.number, text=text))
