"""A partition's own time, which never goes back, and where outcomes of a moment lie by it (P31)."""

from __future__ import annotations

import asyncio
import re

from statemq.config import OUTCOME_PERIOD_MS
from statemq.keys import PartitionKeys
from statemq.store.router import Router


async def times(router: Router, part: PartitionKeys) -> tuple[int, int]:
    """Redis time in ms, and by how much the partition's own is ahead of it: 0 if no clock was set back. As the scripts' ``own_time``."""
    time, mark = await asyncio.gather(
        router.call(part.lease, "TIME"), router.call(part.lease, "HGET", part.lease, "clock"), return_exceptions=True
    )
    if isinstance(time, BaseException):
        raise time
    wall_ms = int(time[0]) * 1000 + int(time[1]) // 1000
    found = re.fullmatch(rb"(\d+) (\d+)", mark) if isinstance(mark, bytes) else None  # damaged by hand: Redis time is the best guess
    return wall_ms, max(int(found[2]), int(found[1]) - wall_ms) if found else 0


async def outcome_names(router: Router, part: PartitionKeys) -> tuple[list[str], int]:
    """The hashes in which an outcome may lie that is still kept, the likeliest first; and Redis time in ms."""
    wall_ms, ahead_ms = await times(router, part)
    # a former version's worker puts them where Redis time says
    periods = {(wall_ms + more_ms) // OUTCOME_PERIOD_MS + step: None for more_ms in (ahead_ms, 0) for step in (1, 0, -1)}
    return [part.outcomes(period) for period in periods], wall_ms
