"""Reads of what is stored of a partition's commands: their journals, and the inboxes in which they wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from statemq.store.commands import Queued
from statemq.store.fence import ScriptFailed
from statemq.store.wire import swallow
from statemq.worker.suspects import crowd_of

if TYPE_CHECKING:
    from statemq.worker.partition import Partition

WAITS = "@version"
"""In a journal: since when (ms) the command waits for another version; empty when one has come."""


async def inbox_head(p: Partition, key: str, n: int) -> list[bytes]:
    raw: list[bytes] = await p.ask("LRANGE", p.keys.inbox(key), 0, n - 1)
    return raw


async def peek(p: Partition, commands: Sequence[Queued], *, check_accepted: bool = False) -> list[Queued]:
    """Reads the commands' journals into them; returns those that are still accepted."""
    if not commands:
        return []
    tag = p.keys.accepted
    asked = [p.router.call(tag, "HGETALL", p.keys.steps(c.id)) for c in commands]
    swallow(asked)  # the first one that fails is raised, for all
    accepted = await p.told(p.router.call(tag, "HMGET", tag, *(c.id for c in commands))) if check_accepted else None
    for c, answer in zip(commands, asked, strict=True):
        try:
            flat = await p.told(answer)
        except ScriptFailed as error:
            p.suspects[c.id] = f"its journal cannot be read: {error}"
            flat = []
        c.journalled, c.peeked = bool(flat) or c.journalled, True
        try:
            _read(p, c, flat)
        except ValueError as error:  # no number, or no UTF-8: written by hand
            p.suspects[c.id] = f"its journal cannot be read: {error}"
            c.journal = {}
    if accepted is None:
        return list(commands)
    return [c for c, where in zip(commands, accepted, strict=True) if where and where.startswith(b"@" + c.entry.encode() + b" ")]


def _read(p: Partition, c: Queued, flat: list[bytes]) -> None:
    c.journal = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
    c.attempts = int(c.journal.get("@attempts", b"0"))
    int(c.journal.get("@started", b"0"))
    c.crowd, c.fell = crowd_of(c.journal.get("@crowd", b""), p.acquired.dead)
    if c.parked:
        # P14: a mark says that it was in progress, and in whose hands; without one it slept, whoever died meanwhile
        worker, _, crashes = c.journal.get("@mark", b"").decode().partition(" ")
        c.crashes = int(crashes or c.journal.get("@crashes", b"0")) + (worker != "" and worker == p.acquired.dead)


async def asked_to_stop(p: Partition, id: str) -> str:
    """Why a running command is to be closed: it is ``gone`` (cancelled before it had a journal), to ``cancel``, or not at all."""
    if not await p.ask("HEXISTS", p.keys.accepted, id):
        return "gone"
    return "cancel" if await p.ask("HEXISTS", p.keys.steps(id), "@cancel") else ""


def failed_before(journal: dict[str, bytes]) -> str:
    """The error of the attempt before, in words; empty where none failed."""
    return "" if journal.get(WAITS) else journal.get("@error", b"").decode(errors="replace")
