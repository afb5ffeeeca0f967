"""How safe a write must be before anybody is told of it (P23)."""

from __future__ import annotations

import asyncio
import re

import msgspec

from statemq.config import OUTCOME_PERIOD_MS, OUTCOME_TTL_MS
from statemq.errors import UsageError
from statemq.keys import PartitionKeys
from statemq.store.router import Router
from statemq.store.wire import ReplyError

WAIT_MS = 2000
"""How long one WAIT may hold up its connection; what was not safe by then is asked again."""


class Durability(msgspec.Struct, frozen=True):
    """``fsync``: on the primary's disk; ``replicas``: received by so many."""

    fsync: bool = False
    replicas: int = 0


def parse(text: str | None) -> Durability | None:
    """From ``fsync``, ``replicas=N`` or nothing."""
    if not text:
        return None
    if text == "fsync":
        return Durability(fsync=True)
    if match := re.fullmatch(r"replicas=([1-9]\d?)", text):
        return Durability(replicas=int(match[1]))
    raise UsageError(f'"{text}" is no durability; write fsync or replicas=N')


async def outcomes_settled(router: Router, part: PartitionKeys, wanted: Durability) -> bool:
    """Whether the outcomes that were seen in this partition are as safe as wanted.

    WAIT counts from the connection's own last write, so there is one first: of a TTL that they have anyway.
    """
    seconds, _ = await router.call(part.lease, "TIME")
    period = int(seconds) * 1000 // OUTCOME_PERIOD_MS
    names = [part.outcomes(p) for p in (period + 1, period, period - 1)]
    await asyncio.gather(*(router.call(part.lease, "PEXPIRE", name, OUTCOME_TTL_MS) for name in names))
    return await settled(router, part.lease, wanted)


async def settled(router: Router, key: str, wanted: Durability) -> bool:
    """Whether all that was written before on this key's connection is now as safe as wanted."""
    try:
        if wanted.fsync:
            local, _ = await router.call(key, "WAITAOF", 1, 0, WAIT_MS)
            return bool(local >= 1)
        return bool(await router.call(key, "WAIT", wanted.replicas, WAIT_MS) >= wanted.replicas)
    except ReplyError as error:
        raise UsageError(f"the server at {router.address} cannot give this durability: {error.message}") from error
