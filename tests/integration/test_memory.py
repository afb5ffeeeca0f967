"""What processes keep in memory is bounded in bytes, whatever others send and whoever stops to wait."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from statemq import Client, Context, Machine, query, transition
from statemq.errors import StatemqError
from statemq.keys import PartitionKeys
from statemq.store import append, reply, unanswered
from statemq.store.fence import Fence
from statemq.worker.batches import Batches
from statemq.worker.partition import Partition
from tests.faulty import FaultyProxy
from tests.waiting import wait_until
from tests.working import working


class Text(msgspec.Struct):
    text: str = ""


gate = asyncio.Event()


class Big(Machine[Text], initial="on", partitions=1):
    @transition(source="on")
    def answer(self, size: int, text: str = "") -> str:
        return "x" * size

    @transition(source="on")
    def put(self, size: int) -> int:
        before, self.data.text = len(self.data.text), "x" * size
        return before

    @transition(source="on")
    async def add(self, ctx: Context, n: int) -> None:
        if n % 3 == 0:
            await ctx.step("wait", asyncio.sleep, 0, returns=None.__class__)
        if n % 5 == 0:
            await ctx.sleep(0.001)
        self.data.text += f"{n},"

    @query
    def seen(self) -> str:
        return self.data.text

    @transition(source="on")
    async def hold(self) -> None:
        await gate.wait()


@pytest.mark.quick
async def test_a_client_that_never_asks_keeps_little_and_can_ask_all_the_same(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply, "EARLY_BYTES", 100_000)
    async with working(url, namespace, Big), Client(url, namespace=namespace, machines=[Big]) as client:
        handles = []
        for _ in range(5):
            handles += await client.send_many([Big.answer(f"k{n}", size=20_000) for n in range(20)])
        last = handles[-1]
        await wait_until(lambda: last.id in client._replies._early)
        assert sum(len(outcome.result) for outcome in client._replies._early.values()) < 100_000
        results = await asyncio.gather(*(handle.result(timeout=20) for handle in handles))
        assert {len(result) for result in results} == {20_000}
        assert await last.result(timeout=0) == results[-1]


async def test_what_is_kept_of_an_outcome_is_not_the_message_it_came_in() -> None:
    outcomes = reply._outcomes(
        b'[{"id":"a","outcome":"completed","result":1},{"id":"b","outcome":"completed","result":"' + b"x" * 100_000 + b'"}]'
    )
    assert memoryview(reply.alone(outcomes[0]).result).nbytes == 1
    import gc

    buffers = [o for o in gc.get_referents(reply.alone(outcomes[0]).result) if isinstance(o, bytes)]
    assert all(len(buffer) < 1000 for buffer in buffers)


async def test_what_was_given_up_while_redis_was_away_is_dropped(
    proxy: FaultyProxy, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append, "ABANDONED_BYTES", 50_000)
    monkeypatch.setattr(unanswered, "ABANDONED_BYTES", 50_000)
    monkeypatch.setattr(unanswered.Unanswered, "_tidy_at", 50_000)
    async with Client(proxy.url, namespace=namespace, machines=[Big]) as client:
        (wire,) = client._router.nodes
        first = await client.send(Big.answer("first", size=1))
        proxy.refuse = True
        proxy.cut()
        await wait_until(lambda: not wire.up)
        waiting = asyncio.ensure_future(client.send(Big.answer("kept", size=1)))
        for n in range(300):
            asks = [client.send(Big.answer("a", size=n, text="x" * 1000)), client.get(Big, "a" * 500)]
            given_up = [asyncio.ensure_future(ask) for ask in asks]
            for _ in range(5):
                await asyncio.sleep(0)
            for ask in given_up:
                ask.cancel()
            await asyncio.wait(given_up)
        (line,) = client._appender._lines.values()
        assert sum(draft.size for draft, _ in line.waiting) <= 60_000
        assert sum(len(call.packed) for call in wire._unanswered) <= 60_000
        proxy.refuse = False
        handle = await waiting
        async with working(url, namespace, Big):
            assert await handle.result(timeout=20) == await first.result(timeout=20) == "x"
        assert not await client.queue(Big, "a"), "what nobody waited for was not sent"


async def test_a_worker_s_idle_instances_are_bounded_by_the_bytes_of_their_data(url: str, namespace: str) -> None:
    async with (
        working(url, namespace, Big, cache_bytes=1_000_000) as worker,
        Client(url, namespace=namespace, machines=[Big]) as client,
    ):
        (partition,) = worker.partitions.values()
        for round in range(2):
            calls = [client.call(Big.put(f"k{n}", size=50_000), timeout=20) for n in range(60)]
            assert set(await asyncio.gather(*calls)) == {0 if round == 0 else 50_000}, "what left memory was read again"
            kept = sum(len(lane.snap.data) for lane in partition.lanes.values())
            assert kept <= 1_000_000
            assert kept == sum(lane.weight for lane in partition.lanes.values()) == partition._cached_bytes
        assert kept >= 500_000, "and it is used"


async def test_results_that_wait_for_their_commit_are_bounded(url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    most, end = 0, Batches.end

    def ends(self: Batches, *args: Any) -> None:
        nonlocal most
        end(self, *args)
        most = max(most, sum(e.size for e in self._ended))

    monkeypatch.setattr(Batches, "end", ends)
    async with Client(url, namespace=namespace, machines=[Big]) as client:
        handles = await client.send_many([Big.answer(f"k{n % 7}", size=50_000) for n in range(200)])
        async with working(url, namespace, Big, window_bytes=200_000):
            for handle in handles:
                assert len(await handle.result(timeout=30)) == 50_000
    assert most <= 300_000


@pytest.mark.parametrize("window", [16, 1024])
async def test_with_next_to_no_memory_each_key_s_commands_run_in_order_and_once(url: str, namespace: str, window: int) -> None:
    """What leaves memory as idle must be idle: a second lane for a key would be a second writer (I1)."""
    async with Client(url, namespace=namespace, machines=[Big]) as client:
        first = await client.send_many([Big.add(f"k{n % 10}", n=n // 10) for n in range(200)])
        async with working(url, namespace, Big, cache_bytes=1, window=window, window_bytes=2_000, read_ahead=2):
            more = await client.send_many([Big.add(f"k{n % 10}", n=20 + n // 10) for n in range(200)])
            await asyncio.gather(*(handle.result(timeout=60) for handle in [*first, *more]))
        for key in range(10):
            assert await client.query(Big, f"k{key}", "seen") == "".join(f"{n}," for n in range(40))


def watch_most(monkeypatch: pytest.MonkeyPatch, measure: Any) -> list[int]:
    most, take = [0], Partition.take

    def takes(self: Partition, entries: Any) -> None:
        take(self, entries)
        most[0] = max(most[0], measure(self))

    monkeypatch.setattr(Partition, "take", takes)
    return most


async def test_a_deep_backlog_of_large_commands_is_read_as_far_as_there_is_room(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = watch_most(monkeypatch, lambda partition: partition.held_bytes)
    async with Client(url, namespace=namespace, machines=[Big]) as client:
        handles = await client.send_many([Big.answer(f"k{n % 7}", size=1, text="x" * 50_000) for n in range(200)])
        async with working(url, namespace, Big, window_bytes=400_000):
            for handle in handles:
                await handle.result(timeout=30)
    assert most[0] <= 400_000 + 16 * 51_000, "the first read knows nothing of their size"


async def test_garbage_is_read_as_far_as_there_is_room(redis: Redis, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    most = watch_most(monkeypatch, lambda partition: len(partition._tasks))
    async with Client(url, namespace=namespace, machines=[Big]) as client:
        stream = PartitionKeys(namespace, "big", 0).commands
        for n in range(300):
            await redis.xadd(stream, {"nothing": str(n)})
        async with working(url, namespace, Big, window=32):

            async def all_buried() -> bool:
                return not await redis.xlen(stream)

            await wait_until(all_buried, timeout_s=30)
        assert len(await client.failed(Big, limit=1000)) == 300
    assert most[0] < 32 + 16


async def test_what_is_on_its_way_into_an_inbox_counts_until_it_is_there(
    proxy: FaultyProxy, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.clear()
    parking, park = 0, Fence.park

    def parks(self: Fence, by_key: Any, may_run: Any) -> Any:
        nonlocal parking
        n = sum(map(len, by_key.values()))
        parking += n
        sent = park(self, by_key, may_run)

        def answered(_: object) -> None:
            nonlocal parking
            parking -= n

        sent.add_done_callback(answered)
        return sent

    monkeypatch.setattr(Fence, "park", parks)
    most = watch_most(monkeypatch, lambda partition: parking)
    async with Client(url, namespace=namespace, machines=[Big]) as client, working(proxy.url, namespace, Big, window=256, read_ahead=2):
        first = await client.send(Big.hold("a"))
        await wait_until(lambda: _running(client, first.id))
        proxy.hold_reply("park")
        handles = await client.send_many([Big.answer("a", size=1) for _ in range(2000)])
        await wait_until(lambda: sum(proxy.struck.values()), timeout_s=30)
        gate.set()
        for handle in handles:
            assert await handle.result(timeout=60) == "x"
    assert most[0] <= 256


async def _running(client: Client, id: str) -> bool:
    with contextlib.suppress(StatemqError):
        return (await client.show(id)).status == "running"
    return False


@pytest.fixture
async def redis(url: str) -> Any:
    async with Redis.from_url(url) as opened:
        yield opened
