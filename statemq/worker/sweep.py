"""What an owner looks after beside its work: forgotten outcomes, consumers of workers that are gone, a stream that was made anew,
accepted commands whose entry somebody deleted."""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import Any

from statemq.config import OUTCOME_PERIOD_MS
from statemq.errors import RedisAway
from statemq.store import outcome
from statemq.store.commands import entry_order
from statemq.store.fence import Lost, Rewound
from statemq.store.wire import ReplyError
from statemq.worker.partition import Partition

EVERY_S = 15.0
"""How often a partition is swept, about."""

SLICE = 200
"""Accepted commands looked at in one sweep."""

GONE_MS = 60_000
"""A consumer of the group that is not ours, has nothing in progress and was not heard of for so long belongs to a former owner."""


async def sweep(p: Partition) -> None:
    """Sweeps while the tenure lasts."""
    cursor, period, looked_s = "0", 0, -math.inf
    while True:
        await asyncio.sleep(EVERY_S * random.uniform(0.75, 1.25))  # noqa: S311 - so that partitions take turns
        if p.closed:
            return
        p.trim()
        if not p.caught_up:
            continue
        if (now := p.now_ms() // OUTCOME_PERIOD_MS) != period:
            period = now
            await _forget_outcomes(p, period)
        if time.monotonic() - looked_s > GONE_MS / 1000:
            looked_s = time.monotonic()
            await _forget_consumers(p)
        if await _made_anew(p):
            p.lose(Rewound())
            return
        cursor = await _find_removed(p, cursor)


async def _forget_outcomes(p: Partition, period: int) -> None:
    """P31: past periods go by UNLINK, which blocks nobody; their TTL is the net."""
    await p.ask("UNLINK", p.keys.outcomes(period - 2), p.keys.outcomes(period - 3))


async def _forget_consumers(p: Partition) -> None:
    """I8: each process start is a consumer of its own, in each partition that it ever owned."""
    for group in map(_by_name, await _asked(p, "XINFO", "GROUPS", p.keys.commands)):
        if group["name"] != b"workers" or group["consumers"] < 2:
            continue
        for consumer in map(_by_name, await _asked(p, "XINFO", "CONSUMERS", p.keys.commands, "workers")):
            name = consumer["name"].decode()
            if name != p.fence.worker and consumer["pending"] == 0 and consumer["idle"] > GONE_MS:
                await _asked(p, "XGROUP", "DELCONSUMER", p.keys.commands, "workers", name)


async def _made_anew(p: Partition) -> bool:
    """Whether the stream is younger than what was read of it: somebody deleted a used-up one, and what it gets now would not be read."""
    position = p.position  # as it was before we asked
    stream = _by_name(await _asked(p, "XINFO", "STREAM", p.keys.commands))
    return bool(stream) and entry_order(stream["last-generated-id"].decode()) < entry_order(position)


async def _asked(p: Partition, *words: str) -> Any:
    """The answer, or nothing: a stream that is not there, or a user who may not ask, ends no tenure."""
    try:
        return await p.router.call(p.keys.commands, *words)
    except (ReplyError, RedisAway):
        return []


def _by_name(flat: list[Any]) -> dict[str, Any]:
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


async def _find_removed(p: Partition, cursor: str) -> str:
    """P27: an accepted command whose entry, inbox or timer is gone ends as failed, so that its client gets an answer."""
    k = p.keys
    raw_cursor, flat = await p.ask("HSCAN", k.accepted, cursor, "COUNT", SLICE)
    rows = [(flat[i].decode(), flat[i + 1].decode()) for i in range(0, len(flat), 2)][:SLICE]
    found = await asyncio.gather(*(_there(p, id, where) for id, where in rows))
    lost = [row for row, there in zip(rows, found, strict=True) if not there]
    if lost:
        reply = await p.answer(p.fence.sweep([_lost(p, id, where) for id, where in lost]))
        for id in reply[1:] if isinstance(reply, list) else []:
            p.removed(id.decode())
    return str(raw_cursor.decode())


def _lost(p: Partition, id: str, where: str) -> Lost:
    """Its entry is gone; what it said is known where it is in memory."""
    known = p.find(id)
    key, transition = (where.partition(" ")[2], "") if known is None else (known.key, known.transition)
    json = outcome.failed(id, key, transition, "", _reason(where), "removed", "", 0)
    return Lost(id, where, json) if known is None else Lost(id, where, json, known.reply, known.once)


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
