"""What an owner looks after beside its work: that its store was not set back, forgotten outcomes, accepted commands whose entry
somebody deleted."""

from __future__ import annotations

import asyncio
import random

from statemq.config import OUTCOME_PERIOD_MS
from statemq.store import outcome
from statemq.worker.partition import Partition

EVERY_S = 8.0
"""How often a partition is swept, about."""

SLICE = 200
"""Accepted commands looked at in one sweep."""


async def sweep(p: Partition) -> None:
    """Sweeps while the tenure lasts."""
    cursor = "0"
    while True:
        await asyncio.sleep(EVERY_S * random.uniform(0.75, 1.25))  # noqa: S311 - so that partitions take turns
        if p.closed:
            return
        if not p.caught_up:
            continue
        # P2: only a numbered call tells an idle owner that its store was set back, and that what it has ended lies there again
        await p.answer(p.fence.adopt([]))
        await _forget_outcomes(p)
        cursor = await _find_removed(p, cursor)


async def _forget_outcomes(p: Partition) -> None:
    """P31: past periods go by UNLINK, which blocks nobody; their TTL is the net."""
    period = p.now_ms() // OUTCOME_PERIOD_MS
    await p.ask("UNLINK", p.keys.outcomes(period - 2), p.keys.outcomes(period - 3))


async def _find_removed(p: Partition, cursor: str) -> str:
    """P27: an accepted command whose entry, inbox or timer is gone ends as failed, so that its client gets an answer."""
    k = p.keys
    raw_cursor, flat = await p.ask("HSCAN", k.accepted, cursor, "COUNT", SLICE)
    rows = [(flat[i].decode(), flat[i + 1].decode()) for i in range(0, len(flat), 2)][:SLICE]
    found = await asyncio.gather(*(_there(p, id, where) for id, where in rows))
    lost = [row for row, there in zip(rows, found, strict=True) if not there]
    if lost:
        ends = [(id, where, outcome.failed(id, where.partition(" ")[2], "", "", _reason(where), "removed", "", 0)) for id, where in lost]
        reply = await p.answer(p.fence.sweep(ends))
        for id in reply[1:] if isinstance(reply, list) else []:
            p.removed(id.decode())
    return str(raw_cursor.decode())


def _reason(where: str) -> str:
    if where == "timer":
        return "its timer was removed by hand"
    return "its inbox was removed by hand" if where.startswith("@") else "its entry was removed from the stream by hand"


async def _there(p: Partition, id: str, where: str) -> bool:
    k = p.keys
    if where == "timer":
        return await p.ask("ZSCORE", k.timers, id) is not None
    if where.startswith("@"):
        return bool(await p.ask("EXISTS", k.inbox(where.partition(" ")[2])))
    return bool(await p.ask("XRANGE", k.commands, where, where))
