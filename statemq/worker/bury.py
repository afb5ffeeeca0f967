"""Dead letters: commands that failed for good, and entries that were never commands (P20, P27)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from statemq.config import LIMITS
from statemq.store import outcome
from statemq.store.commands import Garbage, Queued
from statemq.store.letters import kept
from statemq.worker import tell
from statemq.worker.judge import Doomed, Snapshot

if TYPE_CHECKING:
    from statemq.worker.partition import Partition


async def bury(p: Partition, c: Queued, doom: Doomed, snap: Snapshot) -> None:
    """The command has failed for good; a dead letter keeps it (never one without the other)."""
    json = outcome.failed(c.id, c.key, c.transition, snap.state, doom.reason, doom.code, doom.error, c.attempts + 1)
    letter = [*kept(c), "reason", doom.reason, "error", doom.error, "traceback", doom.trace]
    letter += ["attempts", str(c.attempts + 1), "source", c.entry]
    reply = await p.answer(p.fence.bury(c, json, c.attempts + 1, c.reply, letter, state=snap.state, version=snap.version))
    _word(p, reply)
    p.suspects.pop(c.id, None)
    p.let_go(c)
    tell.buried(p, c, snap.state, doom.reason)


async def bury_garbage(p: Partition, g: Garbage) -> None:
    """An entry that is no command is a dead letter, and out of the stream."""
    await _bury_entry(p, g, ["fields", msgspec.json.encode(g.fields)[: LIMITS.buried_field]])
    p.let_go(g)
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
    return _word(p, await p.answer(p.fence.bury(c, json, 0, "", letter)))


def _word(p: Partition, reply: Any) -> Any:
    """The script's word, once it is said how many letters had to go for this one."""
    if type(reply) is not list:
        return reply
    tell.warned(p, f"{p}: {reply[1]} of its oldest dead letters had to go, since it has as many as are kept; retry or discard some")
    return reply[0]
