"""See: what may be many, instances and what has happened, in order and read a page at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from statemq.keys import PartitionKeys
from statemq.records import HistoryEntry, Listed
from statemq.store.catalog import Known
from statemq.store.glance import ROWS, merged, stream_pages
from statemq.store.inspect import PAGE, fields, number, text
from statemq.store.lease import redis_now_ms
from statemq.store.router import Router


class _Row(NamedTuple):
    since: int
    key: str
    state: str
    part: PartitionKeys


async def list_instances(router: Router, known: Known, state: str | None, older_ms: int | None, limit: int) -> list[Listed]:
    """The instances that have been longest in their state come first."""
    states = [state] if state is not None else known.all_states
    until = "+inf" if older_ms is None else await redis_now_ms(router) - older_ms
    lines = [_in_state(router, part, s, until, min(limit, PAGE)) for part in known.partitions for s in states]
    rows = await merged(lines, lambda row: (row.since, row.key), limit)
    listed: list[Listed] = []
    for at in range(0, len(rows), PAGE):
        page = rows[at : at + PAGE]
        paused = await asyncio.gather(*(router.call(row.part.lease, "HGET", row.part.instance(row.key), "paused") for row in page))
        listed += [
            Listed(row.key, row.state, row.since, why is not None, known.is_declared(row.state))
            for row, why in zip(page, paused, strict=True)
        ]
    return listed


async def _in_state(router: Router, part: PartitionKeys, state: str, until: str | int, count: int) -> AsyncGenerator[_Row, None]:
    """Those of a partition. What leaves the state between two pages may hide one that is behind it."""
    seen = 0
    while True:
        flat = await router.call(part.lease, "ZRANGE", part.in_state(state), "-inf", until, "BYSCORE", "LIMIT", seen, count, "WITHSCORES")
        for i in range(0, len(flat), 2):
            yield _Row(number(flat[i + 1]), text(flat[i]), state, part)
        seen += count
        if len(flat) < 2 * count:
            return


async def history(router: Router, known: Known, key: str | None, limit: int) -> list[HistoryEntry]:
    """The last ``limit`` outcomes, oldest first. Of one key: as far back as its partition's history is kept."""
    parts = known.partitions if key is None else [known.partition(key)]
    lines = [_backwards(router, part, key, min(limit, ROWS) if key is None else PAGE // 10) for part in parts]
    return (await merged(lines, _latest, limit))[::-1]


def _latest(e: HistoryEntry) -> tuple[int, ...]:
    return (-e.at, -e.partition, *(-int(n) for n in e.entry.split("-")))


async def _backwards(router: Router, part: PartitionKeys, key: str | None, first: int) -> AsyncGenerator[HistoryEntry, None]:
    """A partition's outcomes, or those of one key among them, the last one first."""
    async for page in stream_pages(router, part.lease, part.history, backwards=True, first=first, most=PAGE):
        for entry in page:
            found = _history_entry(part, *entry)
            if key is None or found.key == key:
                yield found


def _history_entry(part: PartitionKeys, entry: bytes, flat: list[bytes]) -> HistoryEntry:
    f = fields(flat)
    return HistoryEntry(
        entry=text(entry),
        id=text(f.get("id")),
        key=text(f.get("key")),
        transition=text(f.get("transition")),
        outcome=text(f.get("outcome")),
        source=text(f.get("from")),
        target=text(f.get("to")),
        version=number(f.get("version")),
        attempts=number(f.get("attempts") or b"1"),
        worker=text(f.get("worker")),
        reason=text(f.get("reason")),
        at=int(entry.partition(b"-")[0]),  # the script gave it this id by Redis time
        partition=part.number,
    )
