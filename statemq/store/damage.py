"""Keys of a partition that somebody damaged by hand: looked for when a script has failed, so that it costs nothing before."""

from __future__ import annotations

import asyncio

from statemq.config import OUTCOME_PERIOD_MS
from statemq.keys import PartitionKeys
from statemq.store.router import Router
from statemq.store.wire import ReplyError

LAST_ID = "18446744073709551615-18446744073709551615"
"""Behind it a stream takes no entry."""


async def find_damage(router: Router, keys: PartitionKeys, states: tuple[str, ...], now_ms: int) -> str:
    """Which keys that all commands of the partition share have a wrong type, or take no entry, in words; empty if none.

    A shared key halts the partition (P20); a key of one command or instance is that one's trouble alone.
    """
    period = now_ms // OUTCOME_PERIOD_MS
    wanted = dict.fromkeys((keys.commands, keys.history, keys.failed, keys.outbox), "stream")
    wanted |= dict.fromkeys((keys.lease, keys.accepted, keys.timers_data, keys.received), "hash")
    wanted |= dict.fromkeys((keys.outcomes(period), keys.outcomes(period - 1)), "hash")
    wanted |= dict.fromkeys((keys.ready, keys.timers, *map(keys.in_state, states)), "zset")
    found = await asyncio.gather(*(router.call(keys.lease, "TYPE", name) for name in wanted))
    is_of = {name: raw.decode() for name, raw in zip(wanted, found, strict=True)}
    wrong = [f"{name} is a {is_of[name]}, not a {kind}" for name, kind in wanted.items() if is_of[name] not in (kind, "none")]
    logs = [name for name in (keys.history, keys.failed) if is_of[name] == "stream"]
    used_up = [f"{name} has used up its entry ids" for name in logs if await last_entry(router, keys, name) == LAST_ID]
    return "; ".join(wrong + used_up)


async def last_entry(router: Router, keys: PartitionKeys, stream: str) -> str:
    """The last id that an entry of this stream had; empty if it has just gone."""
    try:
        info = await router.call(keys.lease, "XINFO", "STREAM", stream)
    except ReplyError:
        return ""
    return next((info[i + 1].decode() for i in range(0, len(info), 2) if info[i] == b"last-generated-id"), "")
