"""How an attempt goes and ends: its result, its error, or our own closing of it decides what becomes of the command.

It ends, waits in its place for the next attempt, leaves memory until later, or is buried. Each waits first until what the lane has ended
before is committed (P13).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from statemq.codec import duration_text, encode
from statemq.errors import Reject
from statemq.retry import next_ms
from statemq.store.commands import Queued
from statemq.store.fence import TenureOver
from statemq.worker import tell
from statemq.worker.bury import bury, look_into
from statemq.worker.cut import forgotten
from statemq.worker.execute import Attempt
from statemq.worker.journal import WAITS
from statemq.worker.judge import Doomed, Run, cancelled, conclude, describe, ends, policy, refusal, trace_of

if TYPE_CHECKING:
    from statemq.worker.lane import Lane


class Undone(Exception):
    """What this stood on was not applied: it is to run again."""


async def undoable(lane: Lane, c: Queued, work: Coroutine[Any, Any, None]) -> None:
    """``work``, whatever it raises: the command runs again, or ends."""
    try:
        await work
    except Undone:
        lane.redo.append(c)
    except TenureOver:
        raise
    except Exception as error:  # noqa: BLE001 - what the user's code gave cannot be carried out: its command ends all the same (I6)
        doom = Doomed(f"how it went cannot be stored: {describe(error)}"[:2000], "internal", type(error).__name__, trace_of(error))
        await bury(lane.partition, c, doom, lane.snap)


async def run_attempt(lane: Lane, attempt: Attempt, c: Queued, run: Run) -> None:
    p, trace = lane.partition, ""
    tell.started(p, c, attempt.recorded)
    if p.crash is not None:
        p.crash.started(c.id, c.crashes, f"{p.spec.name}/{c.key} {c.transition}")
    try:
        if not p.is_confirmed:  # its start was answered, but perhaps before this process stood still
            await p.confirm()
        result = await attempt.body()
        if p.crash is not None:
            p.crash.ending(c.id)
        if attempt.stopped is None:
            ended, snap = conclude(p.spec, lane.snap, c, run, result)
            ended.command.journalled = c.journalled
            lane.end(ended, snap, attempt)
            return
    except BaseException as error:  # noqa: BLE001 - the user's code, or our own closing of it
        if attempt.stopped is None:
            await after_error(lane, c, run, error, failed=attempt.failed)
            return
        if attempt.stopped == "late":  # as a text: a traceback that is kept here keeps all that the body had
            trace = trace_of(error)
    # stopped by us: whatever the body did with it, the reason decides
    if p.crash is not None:
        p.crash.dropped(c.id)
    reason = attempt.stopped
    if reason == "suspend":
        await postpone(lane, c, attempt.due_ms)
    elif reason == "cancel":
        await lane.settled()
        lane.end(cancelled(lane.snap, c), lane.snap, attempt)
    elif reason == "late":
        within = f"{c.transition} did not end within {duration_text(run.case.timeout_ms or 0)}"
        late = TimeoutError(f"{within} (it was in step {', '.join(attempt.late_in)})" if attempt.late_in else within)
        await after_error(lane, c, run, late, trace, attempt.failed)
    elif reason == "redo":
        lane.redo.append(c)
    elif reason == "gone":
        p.let_go(c)
        look_into(p, c)
    # "over": the tenure has ended; nothing of it may be written


async def after_error(lane: Lane, c: Queued, run: Run, error: BaseException, trace: str = "", failed: Sequence[str] = ()) -> None:
    """The attempt raised: the command ends, or waits for its next attempt in its place (I2).

    ``trace`` if the error has none; ``failed``: the steps whose failure may have led to it.
    """
    p = lane.partition
    end = ends(error)
    if isinstance(end, Reject):
        await lane.settled()
        lane.end(refusal(p.spec, lane.snap, c, end.reason, end.code), lane.snap)
        return
    if end is not None:
        await doomed(lane, c, end, failed)
        return
    await lane.settled()
    c.attempts += 1
    wait_ms = next_ms(policy(p.spec, run.case), c.attempts, random.random())  # noqa: S311 - jitter
    if wait_ms is None:
        why = f"{describe(error)} (after {c.attempts} attempts)"
        c.attempts -= 1
        await doomed(lane, c, Doomed(why[:2000], "retries", type(error).__name__, trace or trace_of(error)), failed)
        return
    tell.retried(p, c, describe(error), wait_ms)
    fields = [("@attempts", b"%d" % c.attempts), ("@error", describe(error)[:1000].encode(errors="replace"))]
    if c.journal.get(WAITS):  # it has waited for this version; another wait counts from its own begin
        fields.append((WAITS, b""))
    c.journalled = True
    due_ms = p.now_ms() + wait_ms
    if wait_ms > p.settings.suspend_after_s * 1000 or p.draining:
        await postpone(lane, c, due_ms, fields)
        return
    if not c.claimed:
        p.claim_now(c)
    answers = [p.batches.record(c, field, value) for field, value in fields]
    for answer in answers:
        if await answer is None:
            p.let_go(c)
            return
    c.peeked = False  # the next attempt reads the journal as it stands
    lane.queue.appendleft(c)
    p.slots.end(lane)
    lane.backing_off = True
    try:
        await asyncio.sleep(wait_ms / 1000)
    finally:
        lane.backing_off = False
        p.slots.free -= 1  # _owned gives it back


async def doomed(lane: Lane, c: Queued, doom: Doomed, failed: Sequence[str] = ()) -> None:
    await lane.settled()
    p = lane.partition
    if p.spec.on_failure == "pause" and not doom.garbage:
        named = doom.code == "retries"  # its reason is the last error, with its class
        error = doom.reason if named or not doom.error else f"{doom.error}: {doom.reason}"
        fields = [("@error", error.encode(errors="replace")[:4096]), ("@attempts", b"%d" % (c.attempts + 1))]
        fields += forgotten(c.journal)
        if failed:
            fields.append(("@failed", "@".join(failed).encode()))  # whoever resumes wants them tried again
        await postpone(lane, c, 0, fields, paused=doom.reason.lstrip("@")[:1000] or "failed")
        tell.failing(p, f"{p.spec.name}/{c.key} is paused: {c.transition} failed: {doom.reason}")
        return
    await bury(p, c, doom, lane.snap)


async def postpone(lane: Lane, c: Queued, due_ms: int, fields: Any = (), paused: str = "") -> None:
    """The command leaves memory, as its inbox's head, with all that was read of its key behind it (P8)."""
    await lane.settled()
    p = lane.partition
    behind = [b for b in lane.queue if not b.parked]
    for b in lane.queue:
        p.let_go(b)
    lane.queue.clear()
    p.let_go(c)
    lane.inbox = lane.asleep = True
    c.journalled = True
    if c.crashes or "@crashes" in c.journal:
        fields = [*fields, ("@crashes", b"%d" % c.crashes)]
    wake = encode({"kind": "wake", "key": c.key, "transition": c.transition}) if not paused else b""
    answer = await p.postpone(c, fields, behind, due_ms=due_ms, wake_data=wake, paused=paused)
    if answer != b"asleep":
        lane.asleep, lane.loaded = False, False
    if not paused:
        tell.waits(p, c, due_ms, left=True)
