"""One caller's share of a partition's backlog: of commands and of bytes, delayed or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import falcon.testing
import pytest
from redis.asyncio import Redis

from statemq import Client, Context, Machine, transition
from statemq.config import HttpSettings, Share
from statemq.errors import BacklogFull
from statemq.http.access import ROLES, Tokens
from statemq.http.app import create_app
from statemq.keys import PartitionKeys
from statemq.store.draft import SHARE
from statemq.store.scripts import sources
from tests.waiting import wait_until
from tests.working import working

FIRST, SECOND = "the-first-caller", "the-second-caller"


class Till(Machine[None], initial="open", partitions=1):
    @transition(source="open")
    def ring(self, ctx: Context, text: str = "") -> int:
        return len(text)


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Till]) as opened:
        yield opened


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url, decode_responses=True) as opened:
        yield opened


async def taken(client: Client, share: Share, most: int, **options: Any) -> int:
    """How many commands are taken until one is refused."""
    SHARE.set(share)
    for number in range(most):
        try:
            await client.send("till", f"k{number}", "ring", {"text": "x" * 1000}, **options)
        except BacklogFull:
            return number
    return most


@pytest.mark.leaves_work
async def test_so_many_delayed_commands_and_no_more(client: Client) -> None:
    assert await taken(client, Share("a", 5, 10**9), 20, delay="3650d") == 5
    assert await taken(client, Share("b", 5, 10**9), 20, delay=60) == 5, "another caller has its own"
    assert await taken(client, Share("c", 10**6, 5000), 20, delay=60) == 4, "by their bytes"
    SHARE.set(Share("a", 5, 10**9))
    with pytest.raises(BacklogFull, match="as much of this caller as it may"):
        await client.send("till", "z", "ring", {}, delay=1)
    SHARE.set(None)
    await client.send("till", "z", "ring", {}, delay="3650d")  # who has no share is not counted
    SHARE.set(Share("a", 5, 10**9))
    await client.send("till", "z", "ring", {})  # nor what is not delayed, while few wait


@pytest.mark.leaves_work
async def test_so_many_others_once_many_wait(client: Client, redis: Redis, namespace: str) -> None:
    part = PartitionKeys(namespace, "till", 0)
    await client.send("till", "a", "ring", {})
    async with redis.pipeline() as pipe:
        for number in range(1000):
            pipe.hset(part.accepted, f"till.0.filler{number}", "1-1")
        await pipe.execute()
    assert await taken(client, Share("a", 7, 10**9), 20) == 7
    assert await taken(client, Share("a", 7, 10**9), 20, delay=60) == 0, "both count"
    assert await taken(client, Share("b", 7, 10**9), 7) == 7


async def test_what_has_ended_counts_no_more(client: Client, redis: Redis, url: str, namespace: str) -> None:
    share = Share("a", 40, 10**9)
    part = PartitionKeys(namespace, "till", 0)
    for round in range(5):
        assert await taken(client, share, 40, delay=0) == 40, round
        async with working(url, namespace, Till):
            await wait_until(lambda: _is_empty(redis, part))
    held = [key async for key in redis.scan_iter(f"{part.tag}:held:*")]
    assert len(held) == 1 and await redis.pttl(held[0]) > 0
    assert await redis.zcard(held[0]) <= 41
    names = await redis.zrange(held[0], 0, -1)
    assert -await redis.zscore(held[0], "@bytes") == sum(int(name.split()[0]) for name in names if name != "@bytes")


async def test_a_large_one_comes_where_many_short_ones_have_ended(client: Client, redis: Redis, url: str, namespace: str) -> None:
    """Each of these gives back little; the large one needs more than is found by one look."""
    part = PartitionKeys(namespace, "till", 0)
    SHARE.set(Share("a", 10**6, 400_000))
    with pytest.raises(BacklogFull):
        for _ in range(50):
            await asyncio.gather(*(client.send("till", f"k{n}", "ring", {}, delay=0) for n in range(100)))
    async with working(url, namespace, Till):
        await wait_until(lambda: _is_empty(redis, part))
        await client.send("till", "large", "ring", {"text": "x" * 120_000}, delay=0)
        await wait_until(lambda: _is_empty(redis, part))


@pytest.mark.leaves_work
async def test_what_a_caller_holds_is_forgotten_a_day_after_its_last(client: Client, redis: Redis, namespace: str) -> None:
    held, day_ms = f"{PartitionKeys(namespace, 'till', 0).tag}:held:a", 86_400_000
    assert await taken(client, Share("a", 2, 10**9), 3, delay=0) == 2
    assert 0 < await redis.pttl(held) <= day_ms
    await redis.pexpire(held, 60_000)
    assert await taken(client, Share("a", 2, 10**9), 1, delay=0) == 0
    assert await redis.pttl(held) > 60_000, "who is refused is not forgotten sooner"
    assert await taken(client, Share("a", 3, 10**9), 1, delay=3 * 86_400) == 1
    assert 3 * day_ms < await redis.pttl(held) <= 4 * day_ms, "as long as what is delayed waits"


async def _is_empty(redis: Redis, part: PartitionKeys) -> bool:
    return not await redis.hlen(part.accepted)


@pytest.mark.leaves_work
async def test_what_was_cancelled_counts_no_more(client: Client) -> None:
    share = Share("a", 10, 10**9)
    SHARE.set(share)
    handles = [await client.send("till", "a", "ring", {}, delay=3600) for _ in range(10)]
    for handle in handles:
        await handle.cancel()
    assert await taken(client, share, 11, delay=3600) == 10
    for row in await client.queue("till"):
        await client.cancel(row.id)


@pytest.mark.leaves_work
async def test_a_share_that_was_damaged_writes_nothing(client: Client, redis: Redis, namespace: str) -> None:
    part = PartitionKeys(namespace, "till", 0)
    await client.send("till", "a", "ring", {})
    await redis.set(f"{part.tag}:held:a", "text", px=60_000)
    before = await redis.hlen(part.accepted)
    SHARE.set(Share("a", 5, 10**9))
    with pytest.raises(Exception, match="WRONGTYPE"):
        await client.send("till", "a", "ring", {}, delay=5)
    assert await redis.hlen(part.accepted) == before


@pytest.mark.leaves_work
async def test_over_http_by_token(url: str, namespace: str) -> None:
    settings = HttpSettings(commands_each=3, max_delay_s=3600)
    app = create_app([Till], url, namespace, tokens=Tokens({FIRST: ROLES, SECOND: ROLES}), settings=settings)
    async with falcon.testing.ASGIConductor(app) as conductor:

        async def post(token: str, query: str) -> falcon.testing.Result:
            headers = {"Authorization": f"Bearer {token}"}
            return await conductor.simulate_post("/till/a/ring/send", query_string=query, headers=headers, host="localhost")

        assert [(await post(FIRST, "delay=1h")).status_code for _ in range(4)] == [202, 202, 202, 429]
        refused = await post(FIRST, "delay=1h")
        assert refused.json["error"] == "backlog_full" and "this caller" in refused.json["detail"]
        assert (await post(SECOND, "delay=1h")).status_code == 202
        for longer in ("61m", "3601s", "3650d"):
            result = await post(SECOND, f"delay={longer}")
            assert (result.status_code, result.json["error"]) == (400, "parameter"), longer


def test_a_caller_without_a_share_stays_plain() -> None:
    """The hot path: no look at shares before it is known that a command has one."""
    text = sources()["append"]
    assert text.index("if caller and (answer") < text.index("-- the plain command")
