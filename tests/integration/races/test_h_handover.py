"""P7 hand-overs that are given up, P2 resends whose answer says less than the first one did."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.faulty import FaultyProxy
from tests.integration.races.stage import Gate, Stage
from tests.waiting import wait_until


async def test_a_wake_up_whose_answer_was_lost_is_heard_of(play: Stage, proxy: FaultyProxy, hooks: dict[str, Any]) -> None:
    """P2: the wake-up was applied, its answer was lost; the resend is answered `seen`. The timer is gone and the key is in T:ready,
    which nobody reads before the next takeover: its lane must be told all the same."""

    async def work(self: Any, ctx: Any, n: int) -> None:
        await ctx.sleep(0.3)

    hooks["work"] = work
    async with play.worker(proxy.url, suspend_after_s=0.05):
        proxy.lose_reply("wake")
        [id] = await play.send("a", 1, transition="work")
        assert await play.outcome(id) == "completed"
        assert proxy.seen["wake"] == 2


async def test_a_timer_that_rings_during_a_hand_over_fires_when_it_is_given_up(play: Stage, hooks: dict[str, Any]) -> None:
    """P7: a partition drains and its alarm rings: nothing is to fire. The share changes and it stays: what is due must fire now."""
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    async with play.worker() as worker:
        [partition] = worker.partitions.values()
        [busy] = await play.send("a", 1, transition="work")
        await wait_until(lambda: gate.came == [1])
        [delayed] = await play.send("b", 2, delay=0.2)
        await wait_until(lambda: play.redis.zcard(play.part.timers) == 1)
        await asyncio.sleep(0.05)
        partition.drain()
        await asyncio.sleep(0.4)
        assert play.log("b") == []
        partition.undrain()
        assert await play.outcome(delayed) == "completed"
        gate.let_all()
        assert await play.outcome(busy) == "completed"


async def test_a_partition_is_read_again_when_its_hand_over_is_given_up(play: Stage) -> None:
    """P7: while a partition drains it has no room, so that its reader waits for some; nothing of it is in memory that could leave.
    The hand-over is given up: it is read again."""
    async with play.worker() as worker:
        [partition] = worker.partitions.values()
        await wait_until(lambda: partition.in_read)
        partition.drain()
        await wait_until(lambda: not partition.in_read)
        await asyncio.sleep(0.05)
        partition.undrain()
        [id] = await play.send("a", 1)
        assert await play.outcome(id) == "completed"


async def test_a_worker_whose_lease_was_damaged_by_hand_ends_in_good_order(play: Stage) -> None:
    """A lease that is no hash cannot be released; the worker ends all the same."""
    async with play.worker():
        play.redis.set(play.part.lease, "by hand")
    play.redis.delete(play.part.lease)
