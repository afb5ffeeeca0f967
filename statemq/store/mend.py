"""Mend: a command stream whose entry ids were used up by an entry of the far future (P27)."""

from __future__ import annotations

import asyncio

from statemq import keys as names
from statemq.keys import PartitionKeys
from statemq.store.audit import ask
from statemq.store.catalog import Known
from statemq.store.inspect import PAGE, text
from statemq.store.router import Router


async def mend_stream(router: Router, known: Known, part: PartitionKeys) -> str:
    """``mended``: the partition takes commands again; ``sound``: it did already; ``full``: what it holds has to end first.

    It is full with entries in its stream, and with parked ones of the far future: new ones would overtake those (P8).
    Nothing is added between the looks and the script, since the stream takes nothing.
    """
    if await router.call(part.lease, "XLEN", part.commands) or await _parked_ahead(router, part):
        return "full"
    await ask(router, part.namespace, part.machine, "repair")
    # the others remember the last entry that came from here, and would pass over the new, lower ids
    source = names.forwarded_from(part.number)
    await asyncio.gather(*(router.call(other.lease, "HDEL", other.received, source) for other in known.partitions))
    channel = names.news_channel(part.namespace, part.machine)
    return text(await router.run("mend", [part.commands, part.lease], channel, part.number))


async def _parked_ahead(router: Router, part: PartitionKeys) -> bool:
    """Whether an inbox holds an entry of the far future."""
    seconds, _ = await router.call(part.lease, "TIME")
    now_ms, cursor = (int(seconds) + 1) * 1000, b"0"
    while True:
        cursor, flat = await router.call(part.lease, "HSCAN", part.accepted, cursor, "COUNT", PAGE)
        for place in map(text, flat[1::2]):
            ms = place[1:].partition("-")[0]
            if place.startswith("@") and ms.isdecimal() and int(ms) > now_ms:
                return True
        if cursor == b"0":
            return False
