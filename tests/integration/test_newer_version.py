"""What a newer version has stored, this one leaves alone and carries along: both run side by side in every deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from statemq import Client, Context, Fail, Failed, Machine, events, transition
from statemq.config import LIMITS
from statemq.errors import SchemaTooNew
from statemq.keys import PartitionKeys
from statemq.store.commands import MORE, Garbage, Queued, flat_fields, from_element, read_entry, to_element
from statemq.store.declare import declare
from statemq.store.router import Router
from statemq.worker.timers import AT_ONCE
from tests.waiting import wait_until
from tests.working import working


class Data(msgspec.Struct):
    n: int = 0


class Acct(Machine[Data], initial="on", partitions=1, name="acct"):
    @transition(source="on")
    async def slow(self, ctx: Context) -> None:
        await ctx.sleep(30)

    @transition(source="on")
    async def nap(self, ctx: Context) -> None:
        await ctx.sleep(3)

    @transition(source="on")
    def add(self) -> int:
        self.data.n += 1
        return self.data.n

    @transition(source="on")
    def fail(self) -> None:
        raise Fail("no")


PART = PartitionKeys("n", "acct", 0)


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(url) as opened:
        yield opened


def entry(**fields: str) -> Queued:
    flat = [part.encode() for field in fields.items() for part in field]
    read = read_entry(b"1-1", flat, PART, 1, "n:reply:")
    assert isinstance(read, Queued)
    return read


# -- fields of a command -------------------------------------------------------------------------------


def test_unknown_fields_come_through_an_inbox_and_a_forwarding() -> None:
    c = entry(id="acct.0.x", key="a", transition="add", args="{}", origin="o", until="12", if_time="9")
    assert c.more == {"until": "12", "if_time": "9"}
    parked = from_element(to_element(c))
    assert parked is not None
    assert (parked.more, parked.origin, parked.args) == (c.more, "o", b"{}")
    assert from_element(to_element(parked)) == parked
    assert entry(**dict(zip(flat_fields(parked)[::2], ["acct.0.x", "a", "add", "{}", "o", "12", "9"], strict=True))).more == c.more


def test_an_element_that_is_none_is_none_still() -> None:
    for body in (
        b"{}",
        b'{"key":"a"}',
        b'{"key":1,"transition":"t","args":"{}"}',
        b'{"key":1,"transition":"t","args":"{}","x":"y"}',
        b"[1]",
    ):
        assert from_element(b"1-1 acct.0.x " + body) is None


def test_what_is_carried_is_bounded() -> None:
    many = {f"x{i}": "y" for i in range(MORE + 5)}
    assert len(entry(id="i", key="a", transition="add", args="{}", **many).more) == MORE
    long = {"x": "y" * (LIMITS.field + 1), "n" * (LIMITS.name + 1): "y", "z": "1"}
    c = entry(id="i", key="a", transition="add", args="{}", **long)
    assert c.more == {"z": "1"}
    whole = entry(id="i", key="a", transition="add", args="{}", **{f"x{i}": "y" * LIMITS.field for i in range(MORE)})
    assert whole.size > MORE * LIMITS.field


def test_an_unknown_field_that_is_no_text_is_left_out() -> None:
    """Its command runs, as it did when unknown fields were not looked at."""
    named = [b"id", b"acct.0.x", b"key", b"a", b"transition", b"t"]
    read = read_entry(b"1-1", [*named, b"x", b"\xff", b"y", b"1"], PART, 1, "")
    assert isinstance(read, Queued)
    assert read.more == {"y": "1"}
    assert isinstance(read_entry(b"1-1", [*named, b"trace", b"\xff"], PART, 1, ""), Garbage)


async def test_unknown_fields_wait_in_an_inbox_and_are_in_the_dead_letter_and_its_retry(url: str, namespace: str, redis: Any) -> None:
    part = PartitionKeys(namespace, "acct", 0)
    async with Client(url, namespace=namespace, machines=[Acct]) as client, working(url, namespace, Acct):
        head = await client.send(Acct.slow("a"))
        await wait_until(lambda: redis.exists(part.steps(head.id)))
        await redis.xadd(part.commands, {"key": "a", "transition": "fail", "args": "{}", "until": "12"})
        await client.pause(Acct, "a")  # what waits behind it is parked
        await wait_until(lambda: redis.llen(part.inbox("a")))
        elements = await wait_until(lambda: redis.lrange(part.inbox("a"), 0, -1))
        assert any(b'"until":"12"' in element for element in elements), elements
        await client.cancel(head.id)
        await client.resume(Acct, "a")
        (letter,) = await wait_until(lambda: client.failed(Acct))
        assert (await redis.xrange(part.failed))[0][1][b"more"] == b'{"until":"12"}'
        await client.pause(Acct)
        (id,) = await client.failed_retry(Acct, [letter.letter])
        ((_, fields),) = await redis.xrange(part.commands)
        assert (fields[b"id"].decode(), fields[b"until"]) == (id, b"12")
        await client.resume(Acct)
        with pytest.raises(Failed):
            await client.handle(id).result(timeout=60)
        await client.failed_discard(Acct)


# -- timers --------------------------------------------------------------------------------------------


@pytest.mark.leaves_work
async def test_timers_of_an_unknown_kind_stay_and_hold_up_no_other(url: str, namespace: str, redis: Any) -> None:
    part = PartitionKeys(namespace, "acct", 0)
    async with Client(url, namespace=namespace, machines=[Acct]) as client:
        ids = [f"@after:{i}" for i in range(AT_ONCE * 2 + 3)]
        await redis.zadd(part.timers, dict.fromkeys(ids, 5))
        await redis.hset(part.timers_data, mapping=dict.fromkeys(ids, '{"kind":"after","key":"a","state":"on","visit":3}'))
        later = await client.send(Acct.add("b"), delay=0.3)
        async with working(url, namespace, Acct):
            assert await client.call(Acct.add("a"), timeout=60) == 1
            assert await later.result(timeout=60) == 1
            again = await client.send(Acct.add("b"), delay=0.2)
            assert await again.result(timeout=60) == 2
    assert await redis.zcard(part.timers) == await redis.hlen(part.timers_data) == len(ids)


@pytest.mark.leaves_work
async def test_each_timer_of_an_unknown_kind_is_looked_through_once(url: str, namespace: str, redis: Any) -> None:
    part = PartitionKeys(namespace, "acct", 0)

    async def looks() -> int:
        stats = await redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("zrangebyscore", "hmget"))

    async with Client(url, namespace=namespace, machines=[Acct]) as client:
        ids = [f"@after:{i}" for i in range(AT_ONCE * 40)]
        await redis.zadd(part.timers, dict.fromkeys(ids, 5))
        await redis.hset(part.timers_data, mapping=dict.fromkeys(ids, '{"kind":"after"}'))
        later = await client.send(Acct.add("b"), delay=0.1)
        before = await looks()
        async with working(url, namespace, Acct):
            assert await later.result(timeout=60) == 1
    assert await looks() - before < 40 * 10  # one by one batch, each from the beginning, would be 40 * 40


@pytest.mark.leaves_work
async def test_a_timer_that_was_unknown_fires_when_it_was_armed_anew(url: str, namespace: str, redis: Any) -> None:
    part = PartitionKeys(namespace, "acct", 0)
    async with Client(url, namespace=namespace, machines=[Acct]) as client, working(url, namespace, Acct, suspend_after_s=0.01):
        handle = await client.send(Acct.nap("a"))
        await wait_until(lambda: redis.hexists(part.timers_data, handle.id))
        await redis.hset(part.timers_data, handle.id, '{"kind":"call","key":"a"}')  # a newer version's wait of the same command
        await redis.zadd(part.timers, {handle.id: 5})
        await redis.xadd(part.commands, {"transition": "@look", "key": ""})
        assert await (await client.send(Acct.add("b"), delay=0.1)).result(timeout=60) == 1
        assert await redis.zscore(part.timers, handle.id) == 5
        await redis.zadd(part.ready, {"a": 1})  # whose answer has come
        await redis.xadd(part.commands, {"transition": "@look", "key": "a"})
        assert await handle.result(timeout=60) is None


@pytest.mark.leaves_work
async def test_a_damaged_timer_holds_up_no_other(url: str, namespace: str, redis: Any) -> None:
    """One that is no delayed command ends as one that was removed does; one whose kind is called like a word of the script's stays."""
    part = PartitionKeys(namespace, "acct", 0)
    async with Client(url, namespace=namespace, machines=[Acct]) as client, working(url, namespace, Acct):
        damaged = ('"x"', "[]", '["key"]', "[null,1]", "[1,2,3]", '[["a"],"b"]', '["key",["b"]]')
        stays = ('{"kind":"command","key":"a"}', '{"kind":"lost"}', '{"kind":7}', '{"kind":["wake"]}')
        for n, text in enumerate((*damaged, *stays)):
            await redis.hset(part.timers_data, f"t{n}", text)
            await redis.zadd(part.timers, {f"t{n}": 5})
            await redis.xadd(part.commands, {"transition": "@look", "key": ""})
            assert await (await client.send(Acct.add("b"), delay=0.01)).result(timeout=60) == n + 1
        assert await redis.zcard(part.timers) == await redis.hlen(part.timers_data) == len(stays)


# -- the schema ----------------------------------------------------------------------------------------


async def test_who_needs_a_higher_schema_raises_it_and_says_so(url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    listen = lambda event: said.append(event.text) if isinstance(event, events.Warned) else None  # noqa: E731
    events.listeners.append(listen)
    router = await Router(url).open()
    try:
        graph = Acct.spec.graph()
        assert (await declare(router, namespace, "acct", 1, graph, update=True)).schema == 1
        monkeypatch.setattr("statemq.store.declare.SCHEMA", 2)
        assert (await declare(router, namespace, "acct", 1, graph, schema=2, update=False)).schema == 1
        assert said == []
        assert (await declare(router, namespace, "acct", 1, graph, schema=2, update=True)).schema == 2
        assert (await declare(router, namespace, "acct", 1, graph, schema=2, update=True)).schema == 2
        assert said == ["acct is stored by schema 2 now, no longer by 1: a process of a former statemq refuses it"]
        # a class of the new version that does not use what is new
        assert (await declare(router, namespace, "acct", 1, graph, schema=1, update=True)).schema == 2
        monkeypatch.setattr("statemq.store.declare.SCHEMA", 1)
        with pytest.raises(SchemaTooNew, match="schema 2; this one reads 1"):
            await declare(router, namespace, "acct", 1, {"states": ["other"]}, update=True)
        monkeypatch.setattr("statemq.store.declare.SCHEMA", 2)
        assert (await declare(router, namespace, "acct", 1, graph, update=False)).graph == graph
    finally:
        events.listeners.remove(listen)
        await router.close()
