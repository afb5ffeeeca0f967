"""A look at commands reads few of them at a time and stops at a bound in bytes: their arguments may be as long as they may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, TypeVar

from statemq.keys import PartitionKeys
from statemq.records import StepRetry
from statemq.store.inspect import fields, plain, text
from statemq.store.router import Router

_Row = TypeVar("_Row")

DEEP = 1000
"""The most elements of an inbox among which one is looked for that does not lie where its order says."""

TRIES = "@tries"
"""In a journal: the steps that are tried again."""

LOOK_BYTES = 1 << 20
"""What one look reads in all before it asks for no more."""

AT_ONCE = 4
"""Pages of one look that are read at a time, of all partitions and keys."""

ROWS, PAGE_BYTES = 32, 1 << 16
"""The most commands of one page, and the bytes that it is meant to have, by what the page before it had."""


class Look:
    """One look, however many partitions and keys it goes through. Every answer is the front of what lies there: at most as many as were
    asked for, and fewer where the bytes did not suffice."""

    def __init__(self, most: int = LOOK_BYTES) -> None:
        self._left = most
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def stream(self, router: Router, part: PartitionKeys, limit: int) -> list[Any]:
        """Entries of the commands' stream."""

        async def page(found: list[Any], count: int) -> list[Any]:
            since = f"({text(found[-1][0])}" if found else "-"
            return list(await router.call(part.lease, "XRANGE", part.commands, since, "+", "COUNT", count))

        return await self._read(page, limit)

    async def inbox(self, router: Router, part: PartitionKeys, key: str, limit: int) -> list[bytes]:
        """Elements of the key's inbox. Its head may be taken between two pages, and then one element is missed."""

        async def page(found: list[bytes], count: int) -> list[bytes]:
            return list(await router.call(part.lease, "LRANGE", part.inbox(key), len(found), len(found) + count - 1))

        return await self._read(page, limit)

    async def timers(self, router: Router, part: PartitionKeys, ids: list[str]) -> list[bytes | None]:
        """What is kept of these delayed commands."""

        async def page(found: list[bytes | None], count: int) -> list[bytes | None]:
            return list(await router.call(part.lease, "HMGET", part.timers_data, *ids[len(found) : len(found) + count]))

        return await self._read(page, len(ids))

    async def _read(self, page: Callable[[list[_Row], int], Awaitable[list[_Row]]], limit: int) -> list[_Row]:
        found: list[_Row] = []
        count = 1
        while len(found) < limit:
            asked = min(count, limit - len(found))
            async with self._turn:
                if self._left <= 0:
                    break
                rows = await page(found, asked)
                size = size_of(rows)
                self._left -= size
            found += rows
            if len(rows) < asked:
                break
            count = next_count(count, asked, size)
        return found


async def inbox_elements(router: Router, part: PartitionKeys, key: str, limit: int) -> AsyncGenerator[bytes, None]:
    """The first ``limit`` elements of the key's inbox, a page at a time: who finds what they want reads no further."""
    seen, count = 0, 1
    while seen < limit:
        rows = await router.call(part.lease, "LRANGE", part.inbox(key), seen, seen + count - 1)
        for row in rows:
            yield row
        if len(rows) < count:
            return
        seen += len(rows)
        count = min(next_count(count, count, size_of(rows)), limit - seen)


async def parked_element(router: Router, part: PartitionKeys, key: str, entry: str, id: str) -> bytes | None:
    """The element of a parked command. An inbox is in entry order (P8), so a few of its elements tell where it lies, however long those
    before it are; where others hide it, which somebody pushed by hand or which left meanwhile, the first ones are read, as far as the
    bytes of one look suffice."""
    wanted, before = (_order(entry.encode()), id.encode()), _order(entry.encode())
    low, high, step = 0, -1, 0  # its end (high) is looked for in steps that double
    while before is not None and (high < 0 or low <= high):
        at = low + step if high < 0 else (low + high) // 2
        raw = await router.call(part.lease, "LINDEX", part.inbox(key), at)
        if raw is not None and _named(raw) == wanted:
            return bytes(raw)
        order = None if raw is None else _order(raw)
        if raw is not None and (order is None or order < before):
            low, step = at + 1, 2 * step + 1
        elif at == low:
            break
        else:
            high = at - 1
    size = 0
    async for raw in inbox_elements(router, part, key, DEEP):
        if _named(raw) == wanted:
            return raw
        size += len(raw)
        if size > LOOK_BYTES:
            break
    return None


def _order(raw: bytes) -> tuple[int, int] | None:
    """The number of the entry with which an element begins."""
    ms, _, n = raw.partition(b" ")[0].partition(b"-")
    return (int(ms), int(n)) if ms.isdigit() and n.isdigit() else None


def _named(raw: bytes) -> tuple[tuple[int, int] | None, bytes]:
    return _order(raw), raw.split(b" ", 2)[1] if raw.count(b" ") else b""


async def journal_steps(router: Router, part: PartitionKeys, id: str) -> dict[str, bytes]:
    """The steps of the command's journal, as many as the bytes of one look suffice for."""
    found: dict[str, bytes] = {}
    cursor, count, rows, size = b"0", 1, 0, 0
    while size < LOOK_BYTES:
        cursor, flat = await router.call(part.lease, "HSCAN", part.steps(id), cursor, "COUNT", count)
        found |= {name: raw for name, raw in fields(flat).items() if not name.startswith(("@", "now@"))}
        rows, size = rows + len(flat) // 2, size + size_of(flat)
        if cursor == b"0":
            break
        if rows:  # a page with nothing in it says nothing of how long the next may be
            count = next_count(count, rows, size)
    return found


async def retried_steps(router: Router, part: PartitionKeys, id: str, told: bytes | None) -> list[StepRetry]:
    """Steps of the command that have failed and are tried again; ``told``: what its journal's field ``TRIES`` says, which may be stale."""
    said = plain(told)
    by_name = {name: row for name, row in said.items() if isinstance(row, dict)} if isinstance(said, dict) else {}
    if not by_name:
        return []
    recorded = await router.call(part.lease, "HMGET", part.steps(id), *by_name)
    return [
        StepRetry(name, _count(row.get("tries")), str(row.get("error") or ""), _count(row.get("since")), _count(row.get("due")))
        for (name, row), record in zip(by_name.items(), recorded, strict=True)
        if record is None
    ]


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


async def stream_pages(
    router: Router, tag: str, stream: str, since: str = "-", until: str = "+", *, backwards: bool = False, first: int = 1, most: int = ROWS
) -> AsyncGenerator[list[Any], None]:
    """A stream's entries, a page at a time: ``first`` of them, and then by how large they are. With ``backwards`` the youngest first."""
    word, at, end = ("XREVRANGE", until, since) if backwards else ("XRANGE", since, until)
    count = first
    while page := await router.call(tag, word, stream, at, end, "COUNT", count):
        yield page
        if len(page) < count:
            return
        count = next_count(count, count, size_of(page), most)
        at = f"({text(page[-1][0])}"


async def merged(lines: Sequence[AsyncGenerator[_Row, None]], order: Callable[[_Row], Any], limit: int) -> list[_Row]:
    """The first ``limit`` rows of lines that are each in order; a line is read no further than it takes."""
    firsts = await asyncio.gather(*(anext(line, None) for line in lines))
    heads = [(order(row), number, row) for number, row in enumerate(firsts) if row is not None]
    heapify(heads)
    found: list[_Row] = []
    while heads and len(found) < limit:
        _, number, row = heappop(heads)
        found.append(row)
        if (after := await anext(lines[number], None)) is not None:
            heappush(heads, (order(after), number, after))
    for line in lines:
        await line.aclose()
    return found


def next_count(count: int, asked: int, size: int, most: int = ROWS) -> int:
    """How many to read after so many that had so many bytes together."""
    return max(1, min(2 * count, most, PAGE_BYTES * asked // max(1, size)))


def size_of(value: Any) -> int:
    """The bytes of a reply."""
    return sum(map(size_of, value)) if isinstance(value, list) else len(value or b"")
