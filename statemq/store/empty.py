"""Act: a key's queue is emptied, whatever its length: what waits for its turn, or for its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from statemq.keys import PartitionKeys
from statemq.store.catalog import Known
from statemq.store.commands import from_element
from statemq.store.glance import ROWS, inbox_elements, next_count, size_of
from statemq.store.inspect import fields, in_progress, text
from statemq.store.operate import end
from statemq.store.queues import timer_fields
from statemq.store.router import Router

AT_ONCE = 100
"""Commands that are cancelled side by side."""

LOOK_S = 1.0

AT_A_LOOK = 10_000
"""Parked commands whose ids are read before they go."""

Found = tuple[str, str, str]
"""A command's id and transition, and its entry in the stream, if it lies there."""


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
            if await _has_begun(self._router, self._part, found):
                self.begun[found[0]] = None
            else:
                batch.append(found)
            if len(batch) == AT_ONCE or more:
                more = True
                break
        self.cancelled += await _cancel(self._router, self._part, self._key, batch)
        return more


async def _cancel(router: Router, part: PartitionKeys, key: str, batch: list[Found]) -> int:
    said = await asyncio.gather(*(end(router, part, id, key, transition) for id, transition, _ in batch))
    return said.count("cancelled")


async def _has_begun(router: Router, part: PartitionKeys, found: Found) -> bool:
    """Whether it has a journal, or is claimed: it may have touched the world, so it is for its own cancel to end it."""
    id, _, entry = found
    if await router.call(part.lease, "HLEN", part.steps(id)):
        return True
    return bool(entry) and entry in await in_progress(router, part, 1, entry)


async def _waiting(router: Router, part: PartitionKeys, key: str) -> AsyncGenerator[Found | None, None]:
    """In the stream, in the key's inbox, among what is delayed: a page at a time, the last of an inbox first, since what goes moves what is
    behind it. None after each page."""
    since, count = "-", 1
    while rows := await router.call(part.lease, "XRANGE", part.commands, since, "+", "COUNT", count):
        for entry, flat in rows:
            f = fields(flat)
            if text(f.get("key")) == key and f.get("id") and not text(f.get("transition")).startswith("@"):
                yield text(f["id"]), text(f.get("transition")), text(entry)
        yield None
        since = f"({text(rows[-1][0])}"
        count = next_count(count, len(rows), size_of(rows))
    before: set[Found] = set()
    while True:
        parked = [(c.id, c.transition, "") async for raw in inbox_elements(router, part, key, AT_A_LOOK) if (c := from_element(raw))]
        fresh = [found for found in reversed(parked) if found not in before]
        for found in fresh:
            yield found
        if not fresh:
            break
        before = set(parked)
    cursor = b"0"
    while True:
        cursor, flat = await router.call(part.lease, "HSCAN", part.timers_data, cursor, "COUNT", ROWS)
        for id, raw in fields(flat).items():
            f = timer_fields(raw)
            if text(f.get("key")) == key:
                yield id, text(f.get("transition")), ""
        yield None
        if cursor == b"0":
            return
