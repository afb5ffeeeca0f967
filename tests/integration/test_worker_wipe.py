"""The server forgets under a running worker: all of it, a lease, the consumer group, the functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from statemq import Client, StatemqError, events
from statemq.errors import NamespaceLost
from statemq.keys import PartitionKeys, partition_of
from statemq.server import EmbeddedServer
from tests.integration.box import Box, ran
from tests.waiting import wait_until
from tests.working import working

HOME = partition_of("a", 2)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that may be flushed."""
    with EmbeddedServer(Path(tmp_path_factory.mktemp("wiped")), appendonly=False) as server:
        yield server


@pytest.fixture
async def redis(own: EmbeddedServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(own.url) as opened:
        await opened.flushall()
        yield opened


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    texts: list[str] = []

    def tell(event: events.Event) -> None:
        if isinstance(event, events.Failing | events.Warned):
            texts.append(event.text)

    monkeypatch.setattr("statemq.worker.daemon.TROUBLE_S", 0.1)
    events.listeners.append(tell)
    yield texts
    events.listeners.remove(tell)


async def test_a_wiped_namespace_is_said_and_not_made_anew_silently(own: EmbeddedServer, redis: Redis, told: list[str]) -> None:
    async with Client(own.url, machines=[Box]) as client, working(own.url, "statemq", Box, lease_ms=300):
        assert await client.call(Box.put("a"), timeout=20) == 1
        await redis.flushall()
        await wait_until(lambda: len([text for text in told if "was wiped (its lease is gone)" in text]) >= 2)
        assert any("start a worker with --on-wipe reinit to allow it" in text for text in told)
        with pytest.raises(NamespaceLost):
            await client.call(Box.put("a"), timeout=20)
        assert not await redis.keys("*commands*")


async def test_a_waiting_client_is_told_and_does_not_hang(own: EmbeddedServer, redis: Redis, told: list[str]) -> None:
    ran.clear()
    async with Client(own.url, machines=[Box]) as client, working(own.url, "statemq", Box, lease_ms=300):
        handle = await client.send(Box.hold("a"))
        await wait_until(lambda: ran["a"])
        waiting = asyncio.ensure_future(handle.result(timeout=60))
        await redis.flushall()
        with pytest.raises(StatemqError) as error:
            await waiting
        assert error.value.code in ("unknown", "namespace_lost")


@pytest.mark.quick
async def test_with_reinit_a_wiped_namespace_is_made_anew(own: EmbeddedServer, redis: Redis, told: list[str]) -> None:
    async with Client(own.url, machines=[Box]) as client, working(own.url, "statemq", Box, lease_ms=300, on_wipe="reinit"):
        assert await client.call(Box.put("a", n=5), timeout=20) == 5
        for _ in range(2):
            before = len(told)
            await redis.flushall()
            await wait_until(lambda n=before: len([text for text in told[n:] if "it is made anew" in text]) >= 2)

            async def answered() -> object:
                try:
                    return await client.call(Box.put("a"), timeout=20)
                except NamespaceLost:
                    return None  # not all partitions are there yet

            assert await wait_until(answered) == 1  # begins anew
        assert [m.name for m in await client.machines()] == ["box"]


async def test_a_deleted_lease_halts_its_partition_only(own: EmbeddedServer, redis: Redis, told: list[str]) -> None:
    part = PartitionKeys("statemq", "box", HOME)
    far = next(key for key in map(str, range(100)) if partition_of(key, 2) != HOME)
    async with Client(own.url, machines=[Box]) as client:
        async with working(own.url, "statemq", Box, lease_ms=300):
            assert await client.call(Box.put("a"), timeout=20) == 1
            await redis.delete(part.lease)
            await wait_until(lambda: any(f"box:{HOME} was wiped" in text for text in told))
            assert await client.call(Box.put(far), timeout=20) == 1
            with pytest.raises(NamespaceLost, match=f"partition {HOME} of box"):
                await client.send(Box.put("a"))
        async with working(own.url, "statemq", Box, lease_ms=300, on_wipe="reinit"):
            assert await client.call(Box.put("a"), timeout=20) == 2  # its state was not wiped


@pytest.mark.parametrize("how", ["destroy", "setid", "delconsumer", "functions"])
async def test_the_group_and_the_functions_are_made_anew(own: EmbeddedServer, redis: Redis, how: str) -> None:
    part = PartitionKeys("statemq", "box", HOME)
    ran.clear()
    async with Client(own.url, machines=[Box]) as client, working(own.url, "statemq", Box) as worker:
        running = await client.send(Box.hold("a"))
        await wait_until(lambda: ran["a"])
        if how == "destroy":
            await redis.xgroup_destroy(part.commands, "workers")
        elif how == "setid":
            await redis.xgroup_setid(part.commands, "workers", "0")
        elif how == "delconsumer":
            await redis.xgroup_delconsumer(part.commands, "workers", worker.id)
        else:
            await redis.function_flush()
        behind = await client.send(Box.put("a"))
        assert await running.cancel() == "asked"
        assert await behind.result(timeout=20) == 1
        assert ran["a"] == 1
