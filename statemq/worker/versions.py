"""What this worker's code does not know: a command, or an instance, of another version of the class (every deployment, every rollback).

It is nobody's fault, so nothing of it fails at once, and nothing is decided by code that cannot read it. The command stays its key's
head, and the key stays in T:ready, which an owner serves when it begins: a worker of another version that takes the partition goes on
at once. This one runs nothing of the key and keeps nothing of it in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from statemq.codec import duration_text
from statemq.store.commands import Queued
from statemq.worker import endings, tell
from statemq.worker.journal import WAITS
from statemq.worker.judge import Snapshot, Unfit, Unreadable

if TYPE_CHECKING:
    from statemq.declaration.spec import MachineSpec
    from statemq.worker.lane import Lane
    from statemq.worker.partition import Partition

PAUSED = "@version "
"""So begins what T:instance says of a pause that ends by itself. No failure's reason begins so."""

TOLD = 100
"""Things of other versions that a tenure tells of one by one."""


def _since(lane: Lane, c: Queued) -> int:
    """Since when (ms) the command has waited for another version. One that was queued behind another that waited has waited with it, so
    that many do not add up."""
    now = lane.partition.now_ms()
    recorded = int(c.journal.get(WAITS, b"") or 0)
    if not recorded and lane.unknown_since:
        recorded = max(lane.unknown_since, c.order[0])
    return min(now, recorded or now)


async def unknown(lane: Lane, c: Queued, unfit: Unfit) -> None:
    """The command waits for a worker that knows it; it fails when none has come in time."""
    p = lane.partition
    lane.unknown_since = began_ms = _since(lane, c)
    until_ms = began_ms + round(p.settings.unknown_wait_s * 1000)
    doom = unfit.doom
    if p.now_ms() >= until_ms:
        if p.settings.unknown_wait_s:
            within = duration_text(round(p.settings.unknown_wait_s * 1000))
            doom = msgspec.structs.replace(doom, reason=f"{doom.reason} (no worker whose code takes it came within {within})")
        await endings.doomed(lane, c, doom)
        return
    _tell(p, f"{p.spec.name}/{c.key}: {doom.reason}; it waits for a worker whose code takes it", c.transition)
    await endings.postpone(lane, c, until_ms, _noted(f"{doom.reason}; it waits for a worker whose code takes it", began_ms))


async def unreadable(lane: Lane, c: Queued, why: Unreadable) -> None:
    """The instance is paused until it belongs to a worker that reads it."""
    p = lane.partition
    _tell(p, f"{why.reason}; it is paused until a worker's code reads it", "")
    reason = f"{why.reason}; its commands wait for a worker whose code reads it"
    await endings.postpone(lane, c, 0, _noted(reason, p.now_ms()), paused=(PAUSED + why.reason)[:1000])


def _noted(error: str, since_ms: int) -> list[tuple[str, bytes]]:
    return [("@error", error[:2000].encode(errors="replace")), (WAITS, b"%d" % since_ms)]


def _tell(p: Partition, text: str, transition: str) -> None:
    """Once for each transition, and once for data: a bad deployment has many instances."""
    if transition not in p.unknown_told and len(p.unknown_told) < TOLD:
        p.unknown_told.add(transition)
        tell.failing(p, text + ("" if transition else " (others like it are not told of)"))


def came(p: Partition, c: Queued) -> None:
    """The command has waited for another version, which has come: what was noted of its wait is over."""
    if c.journal.get(WAITS):
        for field in (WAITS, "@error"):
            c.journal[field] = b""
            p.batches.record(c, field, b"")


def readable(spec: MachineSpec, key: str, snap: Snapshot) -> bool:
    try:
        spec.build(key, snap.state, snap.version, snap.data)
    except ValueError:
        return False
    return True


async def read_again(p: Partition, key: str) -> None:
    """This worker reads the instance that another version's could not: it is paused no more."""
    await p.answer(p.fence.reread(key))
    p.lane(key).woken()
