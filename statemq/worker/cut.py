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
"""How the journal notes such a step: the failed attempts that there were then, for how long the body had been at work (ms), and the
number of the last record."""

GRACE_S = 10.0
"""How much longer than that a step stands still. Nobody will cancel it then: the code has changed, or does not do the same each time."""


def note(attempt: Attempt, field: str) -> None:
    """What the body does from now on waits for this note (as for a time that it was told).

    What cancelled the step may have begun with the body: a time-out over several steps rings as late when the others are only read.
    """
    _write(attempt, field, b"%d %d %d" % (attempt.command.attempts, attempt.partition.now_ms() - attempt.began_ms, attempt.records))


async def stays(attempt: Attempt, field: str, n: int = 0) -> None:
    """Returns at once for a step that was not cut short, was by an attempt that failed (then it is tried again), or has a record of the
    number ``n``, made after that: by a later attempt, or a former version's worker, which the body has heard. Else it does not return
    before its time is up, and is cancelled before that."""
    noted = attempt.command.journal.get(CUT + field)
    if not noted:
        return
    try:
        attempts, ms, records = map(int, noted.split(b" "))
    except ValueError:  # written by hand
        attempts, ms, records = -1, 0, 0
    if attempts == attempt.command.attempts and n <= records:
        up = asyncio.get_running_loop().create_future()
        timer = up.get_loop().call_later(ms / 1000 + GRACE_S, tell, up, context=attempt.partition.shop.context)
        try:
            await attempt.untimed(up)  # a plain await: a body that stands here stays in memory
        finally:
            timer.cancel()
    _write(attempt, field, b"")  # also because an operator's resume has attempts counted anew


def forgotten(journal: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """What is to be written where attempts will be counted anew: none of these steps stands still then."""
    return [(field, b"") for field, noted in journal.items() if noted and field.startswith(CUT)]


def _write(attempt: Attempt, field: str, value: bytes) -> None:
    attempt.command.journal[CUT + field] = value
    attempt.noted = attempt.send(CUT + field, value)
