"""A key's queue is emptied: stream, inbox and delayed commands; what has begun goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from statemq import Client, Context, Machine, transition
from statemq.errors import Cancelled
from statemq.keys import PartitionKeys
from statemq.store import empty
from statemq.store.operate import end
from tests.waiting import wait_until
from tests.working import working

gate = asyncio.Event()


class Lane(Machine[None], initial="open", partitions=1):
    @transition(source="open")
    async def hold(self, ctx: Context) -> str:
        await gate.wait()
        return "held"

    @transition(source="open")
    def put(self, ctx: Context, text: str = "") -> int:
        return len(text)


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    gate.clear()
    async with Client(url, namespace=namespace, machines=[Lane]) as opened:
        yield opened


@pytest.mark.leaves_work
@pytest.mark.parametrize("look", [3, 10_000])
async def test_without_a_worker_all_goes(client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    monkeypatch.setattr(empty, "AT_A_LOOK", look)
    monkeypatch.setattr(empty, "AT_ONCE", min(look, 100))
    others = [await client.send(Lane.put("b"), delay="3650d"), await client.send(Lane.put("b"))]
    mine = await client.send_many([Lane.put("a", "x" * (n % 7)) for n in range(250)])
    mine += [await client.send(Lane.put("a"), delay=delay, idempotency_key=delay) for delay in ("1h", "3650d")]
    emptied = await client.empty(Lane, "a", by="me")
    assert (emptied.cancelled, emptied.begun) == (252, [])
    assert {row.id for row in await client.queue(Lane, limit=1000)} == {handle.id for handle in others}
    for handle in mine[::50] + mine[-2:]:
        with pytest.raises(Cancelled):
            await handle.result(timeout=20)
    assert (await client.empty(Lane, "a")).cancelled == 0
    assert next((e.did, e.what, e.by) for e in await client.audit(Lane)) == ("cancel", "all that waits of a", "me")
    async with Redis.from_url(url, decode_responses=True) as redis:
        part = PartitionKeys(namespace, "lane", 0)
        assert sorted(await redis.hkeys(part.accepted))[-2:] == sorted(h.id for h in others)
        assert await redis.hlen(part.timers_data) == 1


@pytest.mark.parametrize("look", [3, 10_000])
async def test_what_has_begun_goes_on(client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    monkeypatch.setattr(empty, "AT_A_LOOK", look)
    monkeypatch.setattr(empty, "AT_ONCE", min(look, 100))
    part = PartitionKeys(namespace, "lane", 0)
    async with Redis.from_url(url) as redis, working(url, namespace, Lane, read_ahead=4):
        held = await client.send(Lane.hold("a"))
        await wait_until(lambda: _runs(client, held.id))
        behind = await client.send_many([Lane.put("a") for _ in range(60)])
        await wait_until(lambda: redis.exists(part.inbox("a")))
        emptied = await client.empty(Lane, "a")
        assert (emptied.cancelled, emptied.begun) == (60, [held.id])
        last = await client.send(Lane.put("a", "last"))
        gate.set()
        assert await held.result(timeout=20) == "held"
        assert await last.result(timeout=20) == 4
        assert {(await handle.outcome(timeout=20)).outcome for handle in behind} == {"cancelled"}


async def test_what_begins_while_it_looks_is_spared(client: Client, url: str, namespace: str) -> None:
    """Only the script knows whether it has begun: what began between a look and its cancel was cancelled after it had charged."""
    async with working(url, namespace, Lane):
        held = await client.send(Lane.hold("a"))
        await wait_until(lambda: _runs(client, held.id))
        part = PartitionKeys(namespace, "lane", 0)
        said = await end(client._router, part, held.id, "a", "hold", spare=True)
        assert (said, (await client.show(held.id)).cancel_asked) == ("begun", False)
        gate.set()
        assert await held.result(timeout=20) == "held"


async def test_what_becomes_due_while_it_looks_goes_too(client: Client, url: str, namespace: str) -> None:
    """A command goes from the delayed ones to the stream and to its inbox, and so does the look."""
    async with working(url, namespace, Lane):
        await client.pause(Lane, "a")
        mine = await asyncio.gather(*(client.send(Lane.put("a"), delay=0.3 + n / 500) for n in range(300)))
        await wait_until(lambda: _due(client))
        assert (await client.empty(Lane, "a")).cancelled == len(mine)
        assert not await client.queue(Lane, "a", limit=1000)
        await client.resume(Lane, "a")


@pytest.mark.leaves_work
@pytest.mark.parametrize("where", ["stream", "inbox"])
async def test_it_ends_though_others_send_faster(
    client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """For each command that is cancelled two come; those that were there go, and the others stay."""
    part, more = PartitionKeys(namespace, "lane", 0), list[str]()
    monkeypatch.setattr(empty, "AT_ONCE", 5)
    async with Redis.from_url(url) as redis, contextlib.AsyncExitStack() as workers:
        if where == "inbox":
            await workers.enter_async_context(working(url, namespace, Lane, read_ahead=4))
            await client.pause(Lane, "a")
        there = await client.send_many([Lane.put("a") for _ in range(30)])

        async def all_there(ids: list[str]) -> bool:
            lie = await redis.hmget(part.accepted, ids)
            return all(entry.startswith(b"@") == (where == "inbox") for entry in lie if entry)

        async def outrun(*words: Any, **options: Any) -> str:
            assert len(more) < 500, "it goes on and on"
            sent = [handle.id for handle in await client.send_many([Lane.put("a"), Lane.put("a")])]
            more.extend(sent)
            await wait_until(lambda: all_there(sent))
            return await end(*words, **options)

        await wait_until(lambda: all_there([handle.id for handle in there]))
        monkeypatch.setattr(empty, "end", outrun)
        emptied = await client.empty(Lane, "a")
        assert emptied.cancelled == 30
        assert {row.id for row in await client.queue(Lane, "a", limit=1000)} == set(more)


async def _due(client: Client) -> bool:
    return any(row.where != "timer" for row in await client.queue(Lane, "a", limit=1000))


async def _runs(client: Client, id: str) -> bool:
    return (await client.show(id)).status == "running"
