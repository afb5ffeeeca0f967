"""The same idempotency key with the same request, however it is written and whoever sends it, is the same command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from statemq import Client, Machine, transition
from statemq.codec import digest
from statemq.errors import IdempotencyConflict, UsageError
from statemq.keys import PartitionKeys
from statemq.store.draft import Draft
from tests.working import working


class Line(msgspec.Struct):
    sku: str
    n: int = 1


class Order(Machine[None], initial="open", partitions=1):
    @transition(source="open")
    def put(self, lines: dict[str, Line], tags: set[str] = set(), note: str = "none") -> list[str]:  # noqa: B006
        return list(lines)


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Order]) as opened:
        yield opened


B, A = {"sku": "1"}, {"sku": "2", "n": 1}

WRITTEN: list[dict[str, Any]] = [
    {"lines": {"b": B, "a": A}, "tags": ["y", "x"]},
    {"tags": ["x", "y"], "lines": {"a": A, "b": B}},
    {"tags": ["x", "y", "y"], "lines": {"a": {"n": 1, "sku": "2"}, "b": {"sku": "1", "n": 1}}, "note": "none"},
]


async def test_however_it_is_written_and_whoever_sends_it(client: Client, url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace) as stranger:  # it has only what the machine declared
        first = await client.send(Order.put("a", {"b": Line("1"), "a": Line("2")}, {"x", "y"}), idempotency_key="k")
        for sender in (client, stranger):
            for written in WRITTEN:
                assert (await sender.send("order", "a", "put", written, idempotency_key="k")).id == first.id, written
            for other in ({**WRITTEN[0], "note": ""}, {"lines": {"b": B}}, {**WRITTEN[0], "tags": ["x"]}):
                with pytest.raises(IdempotencyConflict):
                    await sender.send("order", "a", "put", other, idempotency_key="k")
        async with working(url, namespace, Order):
            assert await first.result(timeout=20) == ["b", "a"]  # what runs is what was sent
            again = await stranger.send("order", "a", "put", WRITTEN[2], idempotency_key="k")
            assert again.id == first.id
            assert await again.result(timeout=20) == ["b", "a"]


@pytest.mark.leaves_work
async def test_an_unchanged_repeat_over_a_deploy(client: Client, url: str, namespace: str) -> None:
    """A former version's client sent and kept the digest of the bytes only."""
    keys = PartitionKeys(namespace, "order", 0)
    raw = msgspec.json.encode(WRITTEN[0])
    with pytest.raises(UsageError, match="cannot begin with"):
        await client.send("order", "a", "put", WRITTEN[0], idempotency_key="@failed 0/1-1")
    draft = Draft(keys, "a", "put", raw, [], 1, idempotency_key="old", digest=digest(b"put", raw))
    id = (await client._appender.append(draft)).id
    async with Redis.from_url(url) as redis:
        await redis.hdel(keys.once("a", "old"), "meaning")
    client._catalog._known.clear()
    client._catalog._specs.clear()  # sent as it is written, not in the order of the signature
    assert (await client.send("order", "a", "put", WRITTEN[0], idempotency_key="old")).id == id
    with pytest.raises(IdempotencyConflict):
        await client.send("order", "a", "put", {"lines": {}}, idempotency_key="old")

    assert (await client.send("order", "a", "put", WRITTEN[0], idempotency_key="old", if_state="open")).id == id  # it did not say when

    new = await client.send("order", "a", "put", WRITTEN[0], idempotency_key="new", if_state="open", delay=60)
    async with Redis.from_url(url) as redis:
        assert await redis.hget(keys.once("a", "new"), "digest") == digest(b"put", raw).encode()
    repeat = Draft(keys, "a", "put", raw, [], 1, idempotency_key="new", digest=digest(b"put", raw))
    assert (await client._appender.append(repeat)).id == new.id


CONDITIONS: list[dict[str, Any]] = [
    {},
    {"delay": "3650d"},
    {"delay": 0},
    {"delay": 1},
    {"if_version": 7},
    {"if_version": 0},
    {"if_state": "open"},
    {"if_state": "open", "if_version": 7},
    {"if_state": "open", "delay": 1},
]


@pytest.mark.leaves_work
@pytest.mark.parametrize("first", CONDITIONS, ids=str)
async def test_when_it_may_run_is_a_part_of_the_request(client: Client, first: dict[str, Any]) -> None:
    """Who used another's key first had it run in ten years, or never; and its result was told to whom it had refused."""
    id = (await client.send("order", "a", "put", WRITTEN[0], idempotency_key="k", **first)).id
    for other in CONDITIONS:
        sending = client.send("order", "a", "put", WRITTEN[1], idempotency_key="k", **other)
        if other == first:
            assert (await sending).id == id
        else:
            with pytest.raises(IdempotencyConflict):
                await sending
