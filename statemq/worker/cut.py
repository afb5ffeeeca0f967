"""Steps that the body itself cuts short: a time-out of asyncio's, or a branch that cancels another, ends one before it has a record.

Such a cancellation is noted in the journal, so that an attempt which merely goes on, after a long sleep or a death, does not run that step
again: it stands still until what cancelled it the first time comes to cancel it once more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from statemq.worker.order import tell

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt

CUT = "@cut "
"""How the journal notes such a step: the failed attempts that there were then, and for how long it had been at work (ms)."""

GRACE_S = 10.0
"""How much longer than that a step stands still. Nobody will cancel it then: the code has changed, or does not do the same each time."""


def note(attempt: Attempt, field: str, ms: int) -> None:
    """What the body does from now on waits for this note (as for a time that it was told)."""
    _write(attempt, field, b"%d %d" % (attempt.command.attempts, ms))


async def stays(attempt: Attempt, field: str) -> None:
    """Returns at once for a step that was not cut short, or was by an attempt that failed: then it is tried again. Else it does not
    return before its time is up, and is cancelled before that."""
    attempts, _, ms = attempt.command.journal.get(CUT + field, b"").partition(b" ")
    if not ms or int(attempts) != attempt.command.attempts:
        return
    up = asyncio.get_running_loop().create_future()
    timer = up.get_loop().call_later(int(ms) / 1000 + GRACE_S, tell, up, context=attempt.partition.shop.context)
    try:
        await attempt.untimed(up)  # a plain await: a body that stands here stays in memory
    finally:
        timer.cancel()
    _write(attempt, field, b"")


def _write(attempt: Attempt, field: str, value: bytes) -> None:
    attempt.command.journal[CUT + field] = value
    attempt.noted = attempt.send(CUT + field, value)
