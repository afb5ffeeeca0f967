"""Faults 22 to 25, 50 and those of reads: connections are killed, replies are lost, and the server is silent for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from statemq import Client, Pending, events
from statemq.errors import RedisAway
from statemq.server import EmbeddedServer
from tests.chaos.conftest import Report
from tests.faults.conftest import Serve
from tests.faults.crew import LEASE_MS, Load, answers, crew, goes_on
from tests.faults.tally import Tally
from tests.faulty import FaultyProxy
from tests.waiting import wait_until


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as opened:
        yield opened


@pytest.fixture
async def proxy(server: EmbeddedServer) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(server.port) as running:
        yield running


@pytest.mark.quick
@pytest.mark.parametrize("times", [15, pytest.param(300, marks=[pytest.mark.chaos, pytest.mark.timeout(600)])])
async def test_f23_all_connections_are_killed_again_and_again(url: str, namespace: str, redis: Redis, times: int, report: Report) -> None:
    async with Client(url, namespace=namespace) as client, crew(url, namespace):
        async with Load(client) as load:
            for _ in range(times):
                await redis.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0.2)
            took_s = await goes_on(client, time.monotonic())
            await load.more()
        await load.judge(client)
    report(f"all connections killed {times} times, 5 a second: {load.total} commands, each once and in order; then {took_s:.2f} s")


OFTEN = ["append", "commit", "start", "record", "load", "xread"]
RARE = ["acquire", "park", "postpone"]
CALLS = [*OFTEN, *RARE]
KTH = (1, 2, 3, 5, 8)


@pytest.mark.parametrize("way", ["lose_reply", pytest.param("lose_request", marks=pytest.mark.chaos)])
async def test_f24_the_kth_reply_or_request_of_each_call_is_lost(
    url: str, namespace: str, proxy: FaultyProxy, way: str, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of the k-th read: it is read again (P3)."""
    monkeypatch.setattr("statemq.store.wire.BACKOFF_CAP_S", 0.05)
    async with Client(proxy.url, namespace=namespace) as client:
        for word in CALLS:
            for k in KTH:
                getattr(proxy, way)(word, k)
        async with crew(proxy.url, namespace, workers=1, suspend_after_s=0.0, read_ahead=1, cache=1):
            async with Load(client, every_s=0.0) as load:
                await load.more(20)
                await wait_until(lambda: len(proxy._rules) <= len(RARE) * len(KTH), 60)
            struck = len(CALLS) * len(KTH) - len(proxy._rules)
            await load.judge(client)
            await goes_on(client, time.monotonic())
    report(f"{way}: {struck} of {', '.join(CALLS)}: {load.total} commands, each once and in order")


@pytest.mark.chaos
async def test_f25_a_black_hole_is_found_by_the_time_out(url: str, namespace: str, proxy: FaultyProxy, report: Report) -> None:
    """No FIN and no RST tell: what was under way is lost, and the connections stay open."""
    async with Client(proxy.url, namespace=namespace) as client, crew(proxy.url, namespace):
        async with Load(client) as load:
            await load.more(5)
            proxy.black_hole = True
            await asyncio.sleep(1.0)
            proxy.black_hole = False
            took_s = await goes_on(client, time.monotonic(), lease_ms=5_000)  # calls give a connection up after 5 s
            await load.more(5)
        await load.judge(client)
    report(f"black hole for 1 s: back {took_s:.2f} s after it")


@pytest.mark.chaos
async def test_a_half_open_read_connection_is_given_up(url: str, namespace: str, proxy: FaultyProxy) -> None:
    """The blocking read's connection says nothing any more, all others are well; its entries come by a new one."""
    async with Client(url, namespace=namespace) as client, crew(proxy.url, namespace, workers=1):
        async with Load(client) as load:
            await load.more(5)
            for k in (1, 2):
                proxy.hold_reply("xread", k)
            await wait_until(lambda: not proxy._rules)
            await load.more(5)
        await load.judge(client)


SLEEPS = [("DEBUG", "SLEEP", "2"), ("CLIENT", "PAUSE", "2000", "ALL"), ("CLIENT", "PAUSE", "2000", "WRITE")]


@pytest.mark.parametrize("sleep", [SLEEPS[0], *(pytest.param(sleep, marks=pytest.mark.chaos) for sleep in SLEEPS[1:])])
async def test_f22_a_server_that_sleeps_for_two_leases(serve: Serve, sleep: tuple[str, ...], report: Report) -> None:
    """All leases look expired when it wakes: one wave of acquires at most, nothing twice, no storm of retries."""
    lease_ms = 1_000
    server = serve("--enable-debug-command", "yes", appendonly=False)
    async with Client(server.url) as client, crew(server.url, lease_ms=lease_ms) as workers:
        async with Load(client) as load, Redis.from_url(server.url, socket_timeout=30) as redis:
            await load.more(3)
            before = workers.counted(events.Acquired)
            await redis.execute_command(*sleep)
            if sleep[0] == "CLIENT":
                await asyncio.sleep(2.0)
            took_s = await goes_on(client, await answers(server.url), lease_ms=lease_ms)
            assert workers.counted(events.Acquired) - before <= 2 * Tally.spec.partitions, "more than a wave"
            came = await connections(redis)
            await load.more(10)
            assert await connections(redis) - came < 40, "a storm of connections"
        await load.judge(client)
    report(f"{' '.join(sleep)}, two leases: {load.total} commands, each once and in order; back within {took_s:.2f} s")


async def connections(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_connections_received"])


async def test_f50_subscribers_are_killed_while_outcomes_are_published(url: str, namespace: str, redis: Redis, report: Report) -> None:
    """The record is the truth: who is not told, asks."""
    async with Client(url, namespace=namespace) as client, crew(url, namespace):
        killed = await kill_subscribers(client, redis, 40)
    report(f"{killed} subscriptions killed during 40 calls: each answered")


@pytest.mark.chaos  # whether a worker is subscribed anew within two looks of its peers depends on the machine
async def test_nobody_dies_of_subscriptions_that_are_killed_again_and_again(url: str, namespace: str, redis: Redis) -> None:
    """P5: each life sign is back at once, however short the last one lived."""
    async with Client(url, namespace=namespace) as client, crew(url, namespace) as workers:
        await kill_subscribers(client, redis, 100)
        took_over = [event for event in workers.told if isinstance(event, events.TookOver)]
        assert not took_over, f"living workers were held to be dead: {took_over}"


async def kill_subscribers(client: Client, redis: Redis, times: int) -> int:
    killed = 0
    for n in range(times):
        calling = asyncio.ensure_future(client.call(Tally.nap("a", n=n, ms=50), timeout=30))
        killed += await redis.client_kill_filter(_type="pubsub")
        assert await calling == n
    assert killed > times
    return killed


async def test_f51_clients_that_give_up_leave_no_waiter(url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace) as client, crew(url, namespace, workers=1):
        gave_up: list[str] = []

        async def impatient(n: int) -> None:
            try:
                await client.call(Tally.nap(f"key {n % 50}", n=n, ms=20), timeout=0.001)
            except Pending as pending:
                gave_up.append(pending.id)
            except RedisAway:  # not sent within that time
                pass

        for batch in range(10):
            await asyncio.gather(*(impatient(batch * 100 + n) for n in range(100)))
        assert len(gave_up) > 500
        assert client._replies.waiting == 0
        for id in gave_up:
            assert (await client.handle(id).outcome(timeout=60)).outcome == "completed"
        assert client._replies.waiting == 0


async def test_f13_calls_cancelled_under_way_mix_up_no_replies(url: str, namespace: str, proxy: FaultyProxy) -> None:
    async with Client(proxy.url, namespace=namespace) as client, crew(url, namespace, workers=1):
        await client.call(Tally.ping("a"), timeout=30)
        proxy.delay_s = 0.004
        for n in range(150):
            doomed = asyncio.ensure_future(client.call(Tally.echo(f"key {n % 7}", n=n), timeout=30))
            await asyncio.sleep(0.001 * (n % 12))
            doomed.cancel()
            if n % 5 == 0:
                assert await client.call(Tally.echo(f"key {n % 7}", n=1000 + n), timeout=30) == [1000 + n]
                assert (await client.get(Tally, f"key {n % 7}")).key == f"key {n % 7}"
        proxy.delay_s = 0.0
        await wait_until(lambda: client._replies.waiting == 0)  # the last one that was cancelled has its turn
        assert await asyncio.gather(*(client.call(Tally.echo("a", n=n), timeout=30) for n in range(50))) == [[n] for n in range(50)]


async def test_f15_the_clock_of_a_worker_s_or_client_s_host_jumps(
    url: str, namespace: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases go by Redis time, local waits by the monotonic clock."""
    true = time.time
    async with Client(url, namespace=namespace) as client, crew(url, namespace) as workers:
        before = workers.counted(events.Acquired)
        async with Load(client) as load:
            for hour in (3600, -3600, 0):
                monkeypatch.setattr(time, "time", lambda hour=hour: true() + hour)
                await load.more(10)
                now_ms = int((await redis.time())[0]) * 1000
                async for lease in redis.scan_iter(f"{namespace}:*:lease"):
                    left_ms = int(await redis.hget(lease, "deadline")) - now_ms
                    assert 0 < left_ms < LEASE_MS + 1_500
        await load.judge(client)
        assert workers.counted(events.Acquired) == before, "a tenure ended"


async def test_f33_deadlines_jump_as_by_the_server_s_clock(url: str, namespace: str, redis: Redis) -> None:
    """A lease that ends early or late costs a takeover at most."""
    async with Client(url, namespace=namespace) as client, crew(url, namespace) as workers:
        async with Load(client) as load:
            for hour_ms in (-3_600_000, 3_600_000) * 3:
                await load.more(3)
                async for lease in redis.scan_iter(f"{namespace}:*:lease"):
                    await redis.hincrby(lease, "deadline", hour_ms)
                await goes_on(client, time.monotonic())
            await wait_until(lambda: workers.held >= Tally.spec.partitions)
        await load.judge(client)


@pytest.mark.chaos
async def test_f32_busy_and_flushed_scripts(serve: Serve, report: Report) -> None:
    server = serve("--busy-reply-threshold", "100", appendonly=False)
    async with Client(server.url) as client, crew(server.url), Redis.from_url(server.url, socket_timeout=30) as redis:
        async with Load(client) as load:
            for n in range(10):
                await redis.execute_command("FUNCTION", "FLUSH") if n % 2 else await redis.script_flush()
                await asyncio.sleep(0.1)
            slow = asyncio.ensure_future(redis.eval("while true do end", 0))
            await asyncio.sleep(1.0)
            async with Redis.from_url(server.url) as other:
                await other.script_kill()
            await asyncio.gather(slow, return_exceptions=True)
            took_s = await goes_on(client, await answers(server.url))
            await load.more()
        await load.judge(client)
    report(f"BUSY for a second and scripts flushed 10 times a second: {load.total} commands; back after {took_s:.2f} s")
