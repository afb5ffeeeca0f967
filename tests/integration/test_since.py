"""Since when an instance is in its state: not since its last visit of it, which a transition to the same state begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from statemq import Client, Context, Machine, transition
from statemq.keys import PartitionKeys
from tests.working import working


class Dunning(Machine[None], initial="OK", partitions=1):
    @transition(source=["OK", "PAST_DUE"], target="PAST_DUE")
    def remind(self) -> None: ...

    @transition(source=["OK", "PAST_DUE"], target=["OK", "PAST_DUE"])
    async def look(self, ctx: Context, paid: bool) -> None:
        self.state = "OK" if paid else "PAST_DUE"

    @transition(source=["OK", "PAST_DUE"])
    def note(self) -> None: ...

    @transition(source="PAST_DUE", target="OK")
    def pay(self) -> None: ...


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with working(url, namespace, Dunning), Client(url, namespace=namespace, machines=[Dunning]) as client:
        yield client


async def age(url: str, namespace: str, state: str, key: str, ms: int = 3_600_000) -> int:
    """It has been in its state for longer; since when."""
    part = PartitionKeys(namespace, "dunning", 0)
    async with Redis.from_url(url) as redis:
        return int(await redis.zincrby(part.in_state(state), -ms, key))


@pytest.mark.quick
async def test_who_enters_the_state_it_is_in_is_in_it_as_long_as_before(client: Client, url: str, namespace: str) -> None:
    await client.call(Dunning.remind("a"))
    since = await age(url, namespace, "PAST_DUE", "a")
    for command in (Dunning.remind("a"), Dunning.look("a", paid=False), Dunning.note("a")):
        before = await client.get(Dunning, "a")
        await client.call(command)
        now = await client.get(Dunning, "a")
        assert [(row.key, row.since) for row in await client.list(Dunning, state="PAST_DUE", older="30m")] == [("a", since)]
        assert now.entered == since
        assert (now.visit > before.visit) == (command.transition != "note"), "its visit is new where the state is entered anew"


async def test_who_comes_back_is_in_its_state_since_then(client: Client, url: str, namespace: str) -> None:
    await client.call(Dunning.remind("a"))
    since = await age(url, namespace, "PAST_DUE", "a")
    await client.call(Dunning.pay("a"))
    await client.call(Dunning.remind("a"))
    assert (await client.get(Dunning, "a")).entered > since
    assert await client.list(Dunning, older="30m") == []


async def test_who_leaves_and_comes_back_in_one_batch_is_in_its_state_since_then(client: Client, url: str, namespace: str) -> None:
    await client.call(Dunning.remind("a"))
    since = await age(url, namespace, "PAST_DUE", "a")
    handles = await client.send_many([Dunning.pay("a"), Dunning.remind("a"), Dunning.remind("a")])
    await asyncio.gather(*(handle.result() for handle in handles))
    assert (await client.get(Dunning, "a")).entered > since
    assert await client.list(Dunning, older="30m") == []


async def test_many_new_visits_in_one_batch_change_nothing(client: Client, url: str, namespace: str) -> None:
    await client.call(Dunning.remind("a"))
    since = await age(url, namespace, "PAST_DUE", "a")
    handles = await client.send_many([Dunning.remind("a") for _ in range(20)])
    await asyncio.gather(*(handle.result() for handle in handles))
    assert (await client.get(Dunning, "a")).entered == since
