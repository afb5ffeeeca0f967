"""What is done to many, and looked at in many, is read a page at a time, bounded in number and in bytes, and has as long as it takes."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from statemq import Client
from statemq.errors import UsageError
from statemq.keys import PartitionKeys
from statemq.store import letters
from statemq.store.glance import PAGE_BYTES, size_of
from statemq.store.router import Router
from tests.fake_worker import FakeWorker
from tests.integration.door import Door

pytestmark = pytest.mark.leaves_work

LONG = b'{"width":"%b"}' % (b"9" * 120_000)


class Largest:
    """The bytes of the largest answer, and the most that Python's objects took at a time."""

    reply = 0
    memory = 0


@contextmanager
def watched() -> Iterator[Largest]:
    found, call = Largest(), Router.call

    def noted(self: Router, *words: Any) -> Any:
        answer = call(self, *words)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception() or seen(done.result()))
        return answer

    def seen(reply: Any) -> None:
        found.reply = max(found.reply, size_of(reply) if isinstance(reply, list | bytes) else 0)

    tracemalloc.start()
    try:
        with patch.object(Router, "call", noted):
            yield found
        found.memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def bury(router: Router, part: PartitionKeys, count: int, args: bytes) -> list[str]:
    row = ["key", "a", "transition", "open", "args", args, "at", "1"]
    calls = [router.call(part.lease, "XADD", part.failed, "*", "id", f"door.{part.number}.{n:032x}", *row) for n in range(count)]
    return [f"{part.number}/{entry.decode()}" for entry in await asyncio.gather(*calls)]


@pytest.mark.parametrize(("count", "args"), [(150, LONG), (5000, b'{"width":1}')])
async def test_all_letters_are_discarded_page_by_page(client: Client, fake: FakeWorker, router: Router, count: int, args: bytes) -> None:
    for key in ("a", "b"):
        await bury(router, await fake.part(key), count, args)
    with watched() as largest:
        gone = await client.failed_discard(Door)
    assert gone == 2 * count
    assert largest.reply < 2 * len(args) + 2 * PAGE_BYTES
    assert largest.memory < 8 << 20
    assert await client.failed(Door) == []
    assert len(await client.audit(Door, limit=100_000)) == min(gone, len(await client.audit(Door, limit=1_000_000)))


async def test_all_letters_are_retried_page_by_page(client: Client, fake: FakeWorker, router: Router) -> None:
    named = await bury(router, await fake.part("a"), 150, LONG)
    with watched() as largest:
        assert len(await client.failed_retry(Door, named[:100])) == 100
        assert len(await client.failed_retry(Door)) == 50
    assert largest.reply < 2 * len(LONG) + PAGE_BYTES
    assert largest.memory < 8 << 20


async def test_if_one_of_those_named_cannot_be_retried_none_is(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    named = await bury(router, part, 3, b'{"width":1}')
    named += await bury(router, part, 1, b"no json")
    with pytest.raises(UsageError, match="cannot be retried"):
        await client.failed_retry(Door, named)
    assert len(await client.failed(Door)) == 4


async def test_the_time_out_is_for_each_part_of_what_is_done(
    url: str, namespace: str, client: Client, fake: FakeWorker, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(router, await fake.part("a"), 40, b'{"width":1}')
    monkeypatch.setattr(letters, "PAGE", 1)
    discard, queue = letters._discard, letters._queue

    async def slow_discard(*what: Any) -> int:
        await asyncio.sleep(0.1)
        return await discard(*what)

    async def slow_queue(*what: Any, **how: Any) -> str:
        await asyncio.sleep(0.1)
        return await queue(*what, **how)

    monkeypatch.setattr(letters, "_discard", slow_discard)
    monkeypatch.setattr(letters, "_queue", slow_queue)
    async with Client(url, namespace=namespace, machines=[Door], timeout=2) as hasty:
        assert len(await hasty.failed_retry(Door)) == 40
        await bury(router, await fake.part("a"), 40, b'{"width":1}')
        assert await hasty.failed_discard(Door) == 40


async def test_a_long_history_is_read_page_by_page(client: Client, fake: FakeWorker, router: Router) -> None:
    parts = {part.number: part for part in [await fake.part(key) for key in ("a", "b")]}
    for part in parts.values():
        said = ["transition", "open", "outcome", "failed", "reason", "why " * 500]
        keys = ["a" if n % 2 else "b" for n in range(1500)]
        await asyncio.gather(
            *(
                router.call(part.lease, "XADD", part.history, f"{n // 2 + 1}-{n % 2}", "id", f"i{n}", "key", key, *said)
                for n, key in enumerate(keys)
            )
        )
    with watched() as largest:
        every = await client.history(Door, limit=1_000_000)
        of_key = await client.history(Door, "a", limit=700)
        last = await client.history(Door, limit=10)
    assert len(every) == 1500 * len(parts)
    order = [(e.at, e.partition, int(e.entry.partition("-")[2])) for e in every]
    assert order == sorted(order)
    assert last == every[-10:]
    assert [e.id for e in of_key] == [f"i{n}" for n in range(1500) if n % 2][-700:]
    assert largest.reply < 8 * PAGE_BYTES


async def test_many_instances_are_listed_page_by_page(client: Client, fake: FakeWorker, router: Router) -> None:
    parts = {part.number: part for part in [await fake.part(key) for key in ("a", "b", "c", "d", "e")]}
    for part in parts.values():
        scores = [word for n in range(2500) for word in (n // 3, f"{n:05}" + "k" * 400)]
        await router.call(part.lease, "ZADD", part.in_state("OPEN"), *scores)
    with watched() as largest:
        listed = await client.list(Door, limit=1_000_000)
    assert len(listed) == 2500 * len(parts)
    assert [row.since for row in listed] == sorted(row.since for row in listed)
    assert largest.reply < 700_000
    assert await client.list(Door, limit=3) == listed[:3]
