"""Keys of a partition that somebody damaged by hand: looked for when a script has failed, so that it costs nothing before."""

from __future__ import annotations

import asyncio

from statemq.config import OUTCOME_PERIOD_MS
from statemq.keys import PartitionKeys
from statemq.store.router import Router


async def find_damage(router: Router, keys: PartitionKeys, states: tuple[str, ...], now_ms: int) -> str:
    """Which keys that all commands of the partition share have a wrong type, in words; empty if none.

    A shared key halts the partition (P20); a key of one command or instance is that one's trouble alone.
    """
    period = now_ms // OUTCOME_PERIOD_MS
    wanted = dict.fromkeys((keys.commands, keys.history, keys.failed, keys.outbox), "stream")
    wanted |= dict.fromkeys((keys.lease, keys.accepted, keys.timers_data, keys.received), "hash")
    wanted |= dict.fromkeys((keys.outcomes(period), keys.outcomes(period - 1)), "hash")
    wanted |= dict.fromkeys((keys.ready, keys.timers, *map(keys.in_state, states)), "zset")
    found = await asyncio.gather(*(router.call(keys.lease, "TYPE", name) for name in wanted))
    is_of = {name: raw.decode() for name, raw in zip(wanted, found, strict=True)}
    return "; ".join(f"{name} is a {is_of[name]}, not a {kind}" for name, kind in wanted.items() if is_of[name] not in (kind, "none"))
