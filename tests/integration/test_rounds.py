"""What many partitions and many commands in one round must not do to each other: appends and commits in batches, branches."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import redis as redis_py
from redis.asyncio import Redis

from statemq import Client, Context, Machine, transition
from statemq.config import WorkerSettings
from statemq.errors import NamespaceLost, RedisAway, ServerError
from statemq.keys import PartitionKeys, partition_of
from statemq.store.declare import declare
from statemq.store.router import Router
from statemq.worker.batches import Batches
from statemq.worker.daemon import Worker
from tests.integration.box import Box
from tests.integration.door import Door
from tests.leaks import wipe
from tests.waiting import wait_until
from tests.working import working


@pytest.mark.leaves_work
async def test_a_namespace_that_was_made_anew_with_other_partitions_takes_none_of_the_round(
    client: Client, namespace: str, url: str, router: Router
) -> None:
    """I1: commands of several partitions go in one round; the namespace was made anew with 8 partitions instead of 4. The first answer
    makes the client read the new config; the other partitions' commands, laid out for 4, must not be sent under it."""
    await client.send(Door.open("b"))
    homes: dict[int, str] = {}
    for key in map(str, range(200)):
        if partition_of(key, 4) != partition_of(key, 8):
            homes.setdefault(partition_of(key, 4), key)
    with redis_py.Redis.from_url(url, decode_responses=True) as redis:
        wipe(redis, namespace)
        await declare(router, namespace, "door", 8, Door.spec.graph(), update=True)
        sending = (client.send("door", key, "open", {"width": 1}) for key in homes.values())
        said = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(answer) for answer in said] == [NamespaceLost] * len(homes)
        assert not [p for p in range(8) if redis.xlen(PartitionKeys(namespace, "door", p).commands)]


@pytest.mark.leaves_work
async def test_an_answer_that_cannot_be_read_is_told_to_its_caller_only(client: Client, namespace: str, url: str) -> None:
    """I6: an idempotency record was damaged by hand; another partition's command goes in the same round. Neither caller hangs."""
    await client.send(Door.open("a"), idempotency_key="k")
    part = PartitionKeys(namespace, "door", partition_of("a", 4))
    with redis_py.Redis.from_url(url, decode_responses=True) as redis:
        redis.hset(part.once("a", "k"), "outcome", "garbage")
    other = next(key for key in map(str, range(100)) if partition_of(key, 4) != partition_of("a", 4))
    sending = [
        asyncio.ensure_future(client.send(Door.open("a"), idempotency_key="k")),
        asyncio.ensure_future(client.send(Door.open(other))),
    ]
    await asyncio.wait(sending, timeout=10)
    assert isinstance(sending[0].exception(), ServerError)
    assert sending[1].result().id


@pytest.mark.leaves_work
async def test_a_client_that_closes_in_the_turn_of_a_send_leaves_nobody_waiting(client: Client) -> None:
    """I6: the command was given to the appender, whose task has not begun when the client is closed."""
    await client.send(Door.open("b"))
    sending = asyncio.ensure_future(client.send(Door.open("a")))
    await asyncio.gather(client.close())
    await asyncio.wait([sending], timeout=10)
    assert isinstance(sending.exception(), RedisAway)


@pytest.mark.leaves_work
async def test_a_history_that_is_used_up_within_a_batch_tears_no_instance(url: str, namespace: str) -> None:
    """P19: three commands in one commit, and the history takes one more entry only. No instance is written."""
    async with Client(url, namespace=namespace, machines=[Box]) as client, Redis.from_url(url) as redis:
        part = PartitionKeys(namespace, "box", partition_of("a", 2))
        near = [key for key in map(str, range(100)) if partition_of(key, 2) == partition_of("a", 2)][:3]
        await redis.xadd(part.history, {"by": "hand"}, id="18446744073709551615-18446744073709551614")
        await client.send_many([Box.put(key) for key in near])
        worker = Worker([Box], url, namespace=namespace, settings=WorkerSettings())
        running = asyncio.ensure_future(worker.run())
        await wait_until(lambda: _took_the_last(redis, part))
        worker.stop()
        await running
        assert await redis.hlen(part.accepted) == 3
        assert not [key for key in near if await redis.exists(part.instance(key))]


async def _took_the_last(redis: Redis, part: PartitionKeys) -> bool:
    return bool(await redis.xrange(part.history, "18446744073709551615-18446744073709551615"))


async def test_a_fault_of_ours_in_one_partition_s_sending_costs_its_own_tenure_only(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions send in turns that they share: one that raises ends its own tenure, loudly; the others' commits go, and its own
    commands run in its next tenure."""
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context["message"]))
    home = partition_of("a", 2)
    other = next(key for key in map(str, range(100)) if partition_of(key, 2) != home)
    left, send = {"_loads", "_ended"}, Batches.send

    def faulty(b: Batches) -> None:
        if b.partition.keys.number == home:
            for what in [what for what in left if getattr(b, what)]:
                left.remove(what)
                raise KeyError(what)
        send(b)

    monkeypatch.setattr(Batches, "send", faulty)
    async with Client(url, namespace=namespace, machines=[Box]) as client, working(url, namespace, Box):
        assert await asyncio.gather(client.call(Box.put("a"), timeout=30), client.call(Box.put(other), timeout=30)) == [1, 1]
    assert said == [f"box:{home} could not send"] * 2 and not left


begun: list[str] = []


async def slow(name: str, s: float) -> str:
    begun.append(name)
    await asyncio.sleep(s)
    return name


class Empty(msgspec.Struct):
    pass


class Branches(Machine[Empty], initial="x", partitions=1):
    @transition(source="x")
    async def go(self, ctx: Context) -> None:
        async def steps() -> None:
            await ctx.step("one", slow, "one", 0.1)
            await ctx.step("two", slow, "two", 0.3)

        await asyncio.gather(ctx.sleep(1.5), steps())


@pytest.mark.quick
async def test_a_sleep_that_leaves_memory_waits_for_the_steps_that_follow_in_other_branches(url: str, namespace: str) -> None:
    """I4: one branch sleeps long, another goes from its first step straight to its second: the body is closed when neither runs."""
    begun.clear()
    async with Client(url, namespace=namespace, machines=[Branches]) as client, working(url, namespace, Branches, suspend_after_s=0.05):
        await client.call(Branches.go("a"), timeout=20)
    assert begun == ["one", "two"]
