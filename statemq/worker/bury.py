"""Dead letters: commands that failed for good, and entries that were never commands (P20, P27)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from statemq.config import LIMITS
from statemq.store import outcome
from statemq.store.commands import Garbage, Queued
from statemq.worker import tell
from statemq.worker.judge import Doomed, Snapshot

if TYPE_CHECKING:
    from statemq.worker.partition import Partition


async def bury(p: Partition, c: Queued, doom: Doomed, snap: Snapshot) -> None:
    """The command has failed for good; a dead letter keeps it (never one without the other)."""
    json = outcome.failed(c.id, c.key, c.transition, snap.state, doom.reason, doom.code, doom.error, c.attempts + 1)
    args = c.args[: LIMITS.buried_field].decode(errors="replace")
    letter = ["id", c.id, "key", c.key, "transition", c.transition, "args", args if len(c.args) <= LIMITS.buried_field else ""]
    letter += ["reason", doom.reason, "error", doom.error, "traceback", doom.trace, "attempts", str(c.attempts + 1), "source", c.entry]
    if len(c.args) > LIMITS.buried_field:
        letter += ["args_cut", args]
    await p.answer(p.fence.bury(c, json, c.attempts + 1, c.reply, letter, state=snap.state, version=snap.version))
    p.suspects.pop(c.id, None)
    p.let_go(c)
    tell.buried(p, c, snap.state, doom.reason)


async def bury_garbage(p: Partition, g: Garbage) -> None:
    """An entry that is no command is a dead letter, and out of the stream."""
    await _bury_entry(p, g, ["fields", msgspec.json.encode(g.fields)[: LIMITS.buried_field]])
    tell.warned(p, f"{p}: entry {g.entry} was no command and is a dead letter now: {g.reason}")


def look_into(p: Partition, c: Queued) -> None:
    """A command is not accepted any more. It ended or was removed; or its entry was forged, and then it is garbage."""
    if not c.parked:
        why = "the entry's id is not its own: it belongs to another entry, or to none"
        p.spawn(_bury_forged(p, Garbage(c.entry, why, {}, c.id, c.key, c.transition)))


async def _bury_forged(p: Partition, g: Garbage) -> None:
    if await _bury_entry(p, g, []) == b"garbage":
        tell.warned(p, f"{p}: entry {g.entry} was forged and is a dead letter now: {g.reason}")


async def _bury_entry(p: Partition, g: Garbage, more: list[Any]) -> Any:
    c = Queued(g.entry, g.id, g.key, g.transition, b"")
    json = outcome.failed(g.id, g.key, g.transition, "", g.reason, "garbage", "", 0)
    letter = ["id", g.id, "key", g.key, "transition", g.transition, "reason", g.reason, "source", g.entry, *more]
    return await p.answer(p.fence.bury(c, json, 0, "", letter))
