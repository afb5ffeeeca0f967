"""Entries added by hand: what is a command runs, what is none becomes a dead letter with its reason, and the worker goes on (P27)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from statemq import Client, Failed
from statemq.keys import PartitionKeys, partition_of
from statemq.records import DeadLetter
from tests.integration.box import Box, ran
from tests.waiting import wait_until
from tests.working import working

HOME = partition_of("a", Box.spec.partitions)
MB = 1024 * 1024

GARBAGE: list[tuple[Mapping[Any, Any], str]] = [
    ({"transition": "put"}, 'has no field "key"'),
    ({"key": "", "transition": "put"}, 'has no field "key"'),
    ({"key": "a"}, 'has no field "transition"'),
    ({"name": "value"}, 'has no field "key"'),
    ({"key": b"\xff\xfe", "transition": "put"}, "not UTF-8"),
    ({"key": "a", "transition": b"\xc3("}, "not UTF-8"),
    ({"key": "a", "transition": "put", b"\xff": "x"}, "not UTF-8"),
    ({"key": "a", "transition": "put", "if_state": b"\xff"}, "not UTF-8"),
    ({"key": "a" * 513, "transition": "put"}, "the key has 513 bytes; the limit is 512"),
    ({"key": "a" * 10 * MB, "transition": "put"}, "the limit is 512"),
    ({"key": "a", "transition": "put", "args": "x" * 10 * MB}, "the arguments have 10485760 bytes"),
    ({"key": "a", "transition": "p" * 10 * MB}, "the transition has 10485760 bytes"),
    ({"key": "a", "transition": "put", "if_state": "p" * 10 * MB}, "the field if_state has 10485760 bytes"),
    ({"key": "a", "transition": "put", "trace": "p" * 10 * MB}, "the field trace has 10485760 bytes"),
    ({"key": "a", "transition": "put", "id": "i" * 10 * MB}, "the id has 10485760 bytes; the limit is 256"),
    ({"key": "a", "transition": "put", "id": "box.0.two words"}, "white space"),
    ({"key": "a", "transition": "put", "id": f"box.{HOME}.unknown"}, "the entry's id is not its own"),
    ({"key": "a", "transition": "step", "id": f"box.{HOME}.unknown"}, "the entry's id is not its own"),
    ({"key": "a", "transition": "nothing", "id": f"box.{HOME}.unknown"}, "the entry's id is not its own"),
    ({"key": "a", "transition": "put", "id": "\0{}[]*"}, "the entry's id is not its own"),
    ({"key": "a", "transition": "put", "id": "@look:a"}, "the entry's id is not its own"),
    ({"key": "a", "transition": "fly"}, 'box has no transition "fly"; it has: put'),
    ({"key": "a", "transition": "put", "args": "{"}, "box.put: "),
    ({"key": "a", "transition": "put", "args": "nonsense"}, "box.put: "),
    ({"key": "a", "transition": "put", "args": b'{"n": "\xff"}'}, "box.put: "),
    ({"key": "a", "transition": "put", "args": "[1]"}, "arguments are a JSON object, not array"),
    ({"key": "a", "transition": "put", "args": '{"n": "1"}'}, "n: expected int, got str"),
    ({"key": "a", "transition": "put", "args": '{"n": NaN}'}, "box.put: "),
    ({"key": "a", "transition": "put", "args": '{"m": 1}'}, 'argument "m" is unknown; it takes n'),
    ({"key": "a", "transition": "any_of"}, 'argument "values" is missing'),
    ({"key": "a", "transition": "any_of", "args": '{"values": ' + "[" * 10_000 + "]" * 10_000 + "}"}, "box.any_of: "),
    ({"key": "a", "transition": "any_of", "args": '{"values": ["\\ud800"]}'}, "box.any_of: "),
]


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as opened:
        yield opened


@pytest.fixture
def part(client: Client, namespace: str) -> PartitionKeys:
    return PartitionKeys(namespace, "box", HOME)


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Box]) as opened:
        yield opened


async def letters(client: Client, n: int) -> list[DeadLetter]:
    async def there() -> list[DeadLetter]:
        found = await client.failed(Box)
        return found if len(found) >= n else []

    return await wait_until(there)


async def test_garbage_is_buried_with_its_reason_and_what_stands_between_runs(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys
) -> None:
    handles = []
    entries: dict[str, str] = {}
    for fields, reason in GARBAGE:
        entries[(await redis.xadd(part.commands, fields)).decode()] = reason  # type: ignore[arg-type]
        handles.append(await client.send(Box.put("a")))
    async with working(url, namespace, Box, unknown_wait_s=0):
        assert [await handle.result(timeout=30) for handle in handles] == list(range(1, len(GARBAGE) + 1))
        await letters(client, len(GARBAGE))
        raw = await redis.xrange(part.failed)
        by_source = {fields[b"source"].decode(): fields for _, fields in raw}
        assert set(by_source) == set(entries)
        for source, reason in entries.items():
            assert reason in by_source[source][b"reason"].decode(), by_source[source][b"reason"]
        for fields in by_source.values():
            assert sum(map(len, fields.values())) < 20_000
            assert [value.decode() for value in fields.values()]  # I7: text
        assert await client.call(Box.put("a"), timeout=20) == len(GARBAGE) + 1
        for entry in await client.history(Box):
            assert len(json.dumps(entry.reason)) < 10_000


async def test_key_and_transition_are_enough(client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys) -> None:
    async with working(url, namespace, Box):
        entry = (await redis.xadd(part.commands, {"key": "a", "transition": "put", "unknown": "field", "big": "x" * 10 * MB})).decode()
        id = f"box.{HOME}.{entry}"

        async def ended() -> bool:
            return id in [e.id for e in await client.history(Box)]

        await wait_until(ended)
        assert (await client.get(Box, "a")).data.count == 1
        assert (await client.show(id)).status == "completed"
        bad = (await redis.xadd(part.commands, {"key": "a", "transition": "put", "args": "{}}"})).decode()
        await letters(client, 1)
        with pytest.raises(Failed, match=r"box\.put"):  # it was adopted, so that its outcome can be asked for
            await client.handle(f"box.{HOME}.{bad}").result(timeout=20)


async def test_an_entry_in_the_wrong_partition_is_forwarded_once(client: Client, redis: Redis, url: str, namespace: str) -> None:
    wrong = PartitionKeys(namespace, "box", 1 - HOME)
    for n in (1, 10, 100):
        await redis.xadd(wrong.commands, {"key": "a", "transition": "put", "args": json.dumps({"n": n})})
    async with working(url, namespace, Box):

        async def done() -> bool:
            return (await client.get(Box, "a")).version == 3

        await wait_until(done)
        assert (await client.get(Box, "a")).data.count == 111
        assert [e.id.split(".")[1] for e in await client.history(Box)] == [str(HOME)] * 3
        assert await client.call(Box.put("a"), timeout=20) == 112


async def test_the_id_of_another_command_is_no_way_in(client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys) -> None:
    real = await client.send(Box.step("a"))
    forged = {"id": real.id, "key": "a", "transition": "put", "args": '{"n": 100}'}
    await redis.xadd(part.commands, forged)  # type: ignore[arg-type]
    ran.clear()
    async with working(url, namespace, Box):
        assert await real.result(timeout=20) == 1
        await letters(client, 1)
        await redis.xadd(part.commands, forged)  # type: ignore[arg-type]  # and now it has ended
        await letters(client, 2)
        assert await real.result() == 1
        assert (await client.get(Box, "a")).data.count == 1
        assert [e.id for e in await client.history(Box)] == [real.id]


async def test_a_look_by_hand_does_nothing_but_go(client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys) -> None:
    async with working(url, namespace, Box):
        for key in ("", "a", "never seen", "{x}\0"):
            await redis.xadd(part.commands, {"transition": "@look", "key": key})
        await redis.xadd(part.commands, {"transition": "@look"})
        assert await client.call(Box.put("a"), timeout=20) == 1

        async def empty() -> bool:
            return await redis.xlen(part.commands) == 0

        await wait_until(empty)


@pytest.mark.quick
async def test_an_entry_deleted_by_hand_is_answered_and_its_key_goes_on(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statemq.worker.sweep.EVERY_S", 0.05)
    gone, next_one = await client.send(Box.put("a")), await client.send(Box.put("a", n=5))
    (entry, _), _ = await redis.xrange(part.commands)
    await redis.xdel(part.commands, entry)
    async with working(url, namespace, Box):
        assert await next_one.result(timeout=20) == 5
        with pytest.raises(Failed, match="removed from the stream by hand"):
            await gone.result(timeout=20)


async def test_an_entry_deleted_while_it_runs_changes_nothing(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statemq.worker.sweep.EVERY_S", 0.05)
    ran.clear()
    async with working(url, namespace, Box):
        gone = await client.send(Box.hold("a"))
        await wait_until(lambda: ran["a"])
        behind = await client.send(Box.put("a"))
        await redis.xdel(part.commands, (await gone.status()).entry)
        with pytest.raises(Failed, match="removed from the stream by hand"):
            await gone.result(timeout=20)
        assert await behind.result(timeout=20) == 1


async def test_an_element_by_hand_names_no_record_but_its_partition_s(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys
) -> None:
    """It is none of an accepted command's, and goes; the lease that it names as its idempotency record gets no TTL (P33)."""
    await client.pause(Box, "a")
    handle = await client.send(Box.put("a"))
    async with working(url, namespace, Box):

        async def parked() -> bool:
            return bool(await redis.llen(part.inbox("a")) == 1)

        await wait_until(parked)
        forged = json.dumps({"key": "a", "transition": "put", "args": "{}", "once": part.lease}, separators=(",", ":"))
        await redis.lpush(part.inbox("a"), f"1-1 box.{HOME}.x {forged}")
        await client.resume(Box, "a")
        assert await handle.result(timeout=20) == 1
        assert await redis.ttl(part.lease) == -1


async def test_what_is_no_element_of_an_inbox_is_skipped(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys
) -> None:
    await client.pause(Box, "a")
    handles = await client.send_many([Box.put("a"), Box.put("a")])
    async with working(url, namespace, Box):

        async def parked() -> bool:
            return bool(await redis.llen(part.inbox("a")) == 2)

        await wait_until(parked)
        await redis.lpush(part.inbox("a"), "nonsense", b"\xff\xfe 1 2", f"1-1 box.{HOME}.x {{}}", "")
        await redis.linsert(part.inbox("a"), "BEFORE", await redis.lindex(part.inbox("a"), -1), "in between")  # type: ignore[arg-type]
        await client.resume(Box, "a")
        assert [await h.result(timeout=20) for h in handles] == [1, 2]
        assert await client.call(Box.put("a"), timeout=20) == 3
