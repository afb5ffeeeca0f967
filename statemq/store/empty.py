"""Act: a key's queue is emptied, whatever its length: what waits for its turn, or for its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from statemq.keys import PartitionKeys
from statemq.store.catalog import Known
from statemq.store.commands import entry_order, from_element
from statemq.store.glance import ROWS, inbox_elements, next_count, size_of
from statemq.store.inspect import fields, text
from statemq.store.lease import redis_now_ms
from statemq.store.operate import end
from statemq.store.queues import timer_fields
from statemq.store.router import Router
from statemq.store.wire import ReplyError

AT_ONCE = 100
"""Commands that are cancelled side by side."""

LOOK_S = 1.0

AT_A_LOOK = 10_000
"""Parked commands whose ids are read before they go."""

Found = tuple[str, str]
"""A command's id and transition."""


class Emptying:
    """One way through the queue of a key. ``begun``: the commands that it left alone, since they have begun."""

    def __init__(self, router: Router, known: Known, key: str) -> None:
        self._router, self._part, self._key = router, known.partition(key), key
        self._found = _waiting(router, self._part, key)
        self.cancelled, self.begun = 0, dict[str, None]()

    async def go_on(self) -> bool:
        """Some more commands that had not begun are cancelled, or a second was spent on looking for them. False: there are no more."""
        batch: list[Found] = []
        until_s, more = time.monotonic() + LOOK_S, False
        async for found in self._found:
            if time.monotonic() > until_s:
                more = True
            if found is None:
                if more:
                    break
                continue
            batch.append(found)
            if len(batch) == AT_ONCE or more:
                more = True
                break
        await self._cancel(batch)
        return more

    async def _cancel(self, batch: list[Found]) -> None:
        """Only the script can tell what has begun by then: it may have touched the world, so it is for its own cancel to end it."""
        said = await asyncio.gather(*(end(self._router, self._part, id, self._key, name, spare=True) for id, name in batch))
        self.cancelled += said.count("cancelled")
        self.begun.update((id, None) for (id, _), word in zip(batch, said, strict=True) if word == "begun")


async def _waiting(router: Router, part: PartitionKeys, key: str) -> AsyncGenerator[Found | None, None]:
    """Among what is delayed, in the stream, in the key's inbox: the way that a command goes, so none passes by this look. A page at a time,
    the last of an inbox first, since what goes moves what is behind it. None after each page.

    What is queued after the look at the delayed ones is left alone, else there were no end while others send faster than this cancels.
    """
    cursor = b"0"
    while True:
        cursor, flat = await router.call(part.lease, "HSCAN", part.timers_data, cursor, "COUNT", ROWS)
        for id, raw in fields(flat).items():
            f = timer_fields(raw)
            if text(f.get("key")) == key:
                yield id, text(f.get("transition"))
        yield None
        if cursor == b"0":
            break
    last = await _last_entry(router, part)
    since, count = "-", 1
    while rows := await router.call(part.lease, "XRANGE", part.commands, since, last, "COUNT", count):
        for _, flat in rows:
            f = fields(flat)
            if text(f.get("key")) == key and f.get("id") and not text(f.get("transition")).startswith("@"):
                yield text(f["id"]), text(f.get("transition"))
        yield None
        since = f"({text(rows[-1][0])}"
        count = next_count(count, len(rows), size_of(rows))
    before: set[Found] = set()
    while True:
        parked = [  # without their arguments, which may be long
            (c.id, c.transition)
            async for raw in inbox_elements(router, part, key, AT_A_LOOK)
            if (c := from_element(raw)) and c.order <= entry_order(last)
        ]
        fresh = [found for found in reversed(parked) if found not in before]
        for found in fresh:
            yield found
        if not fresh:
            break
        before = set(parked)


async def _last_entry(router: Router, part: PartitionKeys) -> str:
    """The last entry that the partition's stream has had; what is parked keeps its entry's number."""
    try:
        return text(fields(await router.call(part.lease, "XINFO", "STREAM", part.commands))["last-generated-id"])
    except ReplyError:  # somebody deleted the stream; a new one's entries begin at the time
        return str(await redis_now_ms(router))
