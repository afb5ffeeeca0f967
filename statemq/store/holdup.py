"""What holds a command up, as far as Redis says so at once: for who has waited for it in vain."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from statemq.codec import parse_command_id, times
from statemq.keys import PartitionKeys
from statemq.records import StepRetry
from statemq.store.glance import TRIES, retried_steps
from statemq.store.inspect import paused_why, text
from statemq.store.queues import behind
from statemq.store.router import Router

AT_ONCE_S = 0.5

STANDS = "it is not cancelled, it still waits or runs"
"""Of a command for whose end somebody has stopped waiting."""

UNSEEN = "Redis does not answer, so it is not known whether it has ended by now"
"""The same while nothing can be asked."""

T = TypeVar("T")


async def held_up(router: Router, namespace: str, id: str, key: str) -> str:
    """How it stands with the command: what is paused, behind what it waits, and why its last attempt failed, or a step of it."""
    name, p = parse_command_id(id)
    part = PartitionKeys(namespace, name, p)
    if not router.wire_for(part.lease).up:
        return UNSEEN
    pauses = asyncio.ensure_future(paused_why(router, part, key))
    before = asyncio.ensure_future(_behind(router, part, key, id))
    troubles = asyncio.ensure_future(_troubles(router, part, id))
    _, late = await asyncio.wait([pauses, before, troubles], timeout=AT_ONCE_S)
    for look in late:
        look.cancel()
    if late == {pauses, before, troubles}:
        return UNSEEN
    paused, unread = _told(pauses, ("", ""))
    ahead, (error, step) = _told(before, ""), _told(troubles, ("", None))
    if unread:
        return f"{paused} is paused until a worker's code can read it: {unread}"
    how = f"it waits behind {ahead}" if ahead else STANDS
    if paused:
        how = f"{paused} is paused: it waits until that is resumed"
    if step is not None:
        return f"{how}; its step {step.name} has failed {times(step.tries)}, and is tried again: {step.error}"
    return f"{how}; {error}" if error else how


async def _behind(router: Router, part: PartitionKeys, key: str, id: str) -> str:
    return await behind(router, part, key, id) if key else ""


async def _troubles(router: Router, part: PartitionKeys, id: str) -> tuple[str, StepRetry | None]:
    """What failed last: its attempt, or a step of it."""
    error, waits, tries = await router.call(part.lease, "HMGET", part.steps(id), "@error", "@version", TRIES)
    steps = await retried_steps(router, part, id, tries)
    said = f"{'' if waits else 'its last attempt failed: '}{text(error)}" if error else ""
    return said, steps[-1] if steps else None


def _told(look: asyncio.Future[T], otherwise: T) -> T:
    """Nothing of a key that was damaged by hand, or that was not read in time."""
    if not look.done() or look.cancelled() or look.exception() is not None:
        return otherwise
    return look.result()
