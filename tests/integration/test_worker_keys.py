"""Keys of odd characters on every way through the engine, and sizes at their limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from statemq import Cancelled, Client, Command, Failed
from statemq.config import LIMITS
from statemq.errors import InvalidKey, TooLarge
from tests.integration.box import Box, ran
from tests.waiting import wait_until
from tests.working import working

KEYS = [
    "{a}", "}{", "a}b{c", "*", "[a-z]?", "\\*", "a:b:c", "new\nline\r\n", "nul\0nul", "\0", " ", " a b ", "\t", "-", "--help", "@look:x",
    "%2F/..", "'; DROP", '"quoted"', "ü" * 256, "😀" * 128, "a\u2028b", "\ufeffbom", "once", "0", "timer", "machine.3.id",
]  # fmt: skip


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Box]) as opened:
        yield opened


async def test_any_text_is_a_key(client: Client, url: str, namespace: str) -> None:
    ran.clear()
    async with working(url, namespace, Box, suspend_after_s=0.001):
        sleepers = [await client.send(Box.step(key, sleep=0.05)) for key in KEYS]  # inbox, timers and journal
        behind = [await client.send(Box.put(key), idempotency_key=f"k:{key[:60]}") for key in KEYS]
        later = [await client.send(Box.put(key), delay=0.05) for key in KEYS]
        assert [await h.result(timeout=30) for h in sleepers] == [1] * len(KEYS)
        for handle in [*behind, *later]:
            assert await handle.result(timeout=30) in (2, 3)
        for key in KEYS:
            assert await client.call(Box.put(key, n=0), timeout=20) == 3
            assert (await client.call(Box.put(key), idempotency_key=f"k:{key[:60]}", timeout=20)) in (2, 3)  # the first one's
            assert (await client.get(Box, key)).data.count == 3
            assert {e.key for e in await client.history(Box, key, limit=1000)} == {key}
        assert {row.key for row in await client.list(Box)} == set(KEYS)


async def test_any_key_can_be_paused_parked_cancelled_and_buried(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Box):
        for key in KEYS:
            await client.pause(Box, key)
        waiting = [await client.send(Box.put(key)) for key in KEYS]
        doomed = [await client.send("box", key, "result_of", {"size": LIMITS.result}) for key in KEYS]
        unwanted = [await client.send(Box.put(key)) for key in KEYS]

        async def parked() -> bool:
            return {row.where for row in await client.queue(Box, limit=1000)} == {"inbox"}

        await wait_until(parked)
        for key in KEYS:
            assert [row.key for row in await client.queue(Box, key)] == [key] * 3
        for handle in unwanted:
            assert await handle.cancel() == "cancelled"
        for ended in await asyncio.gather(*(handle.result(timeout=20) for handle in unwanted), return_exceptions=True):
            assert isinstance(ended, Cancelled)
        for key in KEYS:
            await client.resume(Box, key)
        assert [await h.result(timeout=20) for h in waiting] == [1] * len(KEYS)
        for handle in doomed:
            assert (await handle.outcome(timeout=20)).code == "too_large"
        assert {letter.key for letter in await client.failed(Box)} == set(KEYS)


@pytest.mark.quick
@pytest.mark.parametrize("key", ["", "ü" * 257, "a" * 513, "\ud800", 7, None])
async def test_what_is_no_key_is_refused_at_once(client: Client, key: Any) -> None:
    with pytest.raises(InvalidKey):
        Box.put(key)
    with pytest.raises(InvalidKey):
        await client.get(Box, key)


SIZED: list[tuple[Callable[[int], Command[Any]], int, str]] = [
    (lambda size: Box.result_of("a", size=size), LIMITS.result - 2, "the result of result_of"),
    (lambda size: Box.step_of("a", size=size), LIMITS.step - 2, "the result of step big"),
    (lambda size: Box.data_of("a", size=size), LIMITS.data - len('{"count":0,"text":""}'), "the data of box/a"),
]


@pytest.mark.parametrize(("command", "limit", "what"), SIZED, ids=["result", "step", "data"])
async def test_sizes_hold_to_the_byte(
    client: Client, url: str, namespace: str, command: Callable[[int], Command[Any]], limit: int, what: str
) -> None:
    async with working(url, namespace, Box):
        await client.call(command(limit), timeout=20)
        for size in (limit + 1, 50_000_000):
            with pytest.raises(Failed, match=f"{what} has {size + 2 if 'data' not in what else size + 21} bytes; the limit is") as failed:
                await client.call(command(size), timeout=30)
            assert failed.value.code == "too_large"
        assert await client.call(Box.put("a", n=0), timeout=20) == 0


async def test_arguments_too_large_are_refused_at_once(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Box):
        room = LIMITS.arguments - len('{"values":[]}')
        fits = [100, *[0] * (room // 2 - 1)]  # a digit and a comma for each number but the first
        assert len(Box.any_of("a", values=fits).args) == LIMITS.arguments
        assert await client.call(Box.any_of("a", values=fits), timeout=20) == [fits, False]
        with pytest.raises(TooLarge, match=f"arguments has {LIMITS.arguments + 1} bytes; the limit is {LIMITS.arguments}"):
            await client.send("box", "a", "any_of", {"values": [1000, *fits[1:]]})
        assert await client.call(Box.put("a"), timeout=20) == 1
