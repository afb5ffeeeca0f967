"""P3 Stateless reads, fenced starts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from statemq.store import lease
from statemq.store.fence import Rewound
from tests.faulty import FaultyProxy
from tests.integration.races.stage import Gate, Held, Stage
from tests.waiting import wait_until


async def test_what_a_zombie_reads_is_not_lost(play: Stage) -> None:
    """P3: w1's blocked read returns entries after w2 took over; w1 does nothing with them. w2 reads from the beginning and
    gets them all: a read changes nothing on the server. (XREADGROUP would have given them to w1 only.)"""
    zombie = asyncio.ensure_future(
        play.router.own_wire(play.part.commands, timeout_s=10).call("XREAD", "BLOCK", 5000, "STREAMS", play.part.commands, "0-0")
    )
    await play.own("w1")
    new = await play.take_over("w2")
    await play.send("a", 1)
    assert len((await zombie)[0][1]) == 1
    await play.send("a", 2)
    for version, c in enumerate(play.queued()):
        assert await play.committed(new, play.ended(c, version, log=[version])) == ["applied"]


async def test_a_read_whose_reply_was_lost_is_read_again(play: Stage, proxy: FaultyProxy) -> None:
    """P3: the connection is cut in place of the blocking read's reply: the same position is read again, nothing is left out."""
    async with play.worker(proxy.url):
        first = (await play.send("a", 1))[0]
        assert await play.outcome(first) == "completed"
        proxy.lose_reply("XREAD")
        await play.send("a", 2, 3)
        await wait_until(lambda: play.log("a") == [1, 2, 3])


async def test_pending_are_exactly_the_commands_in_progress(play: Stage) -> None:
    """P3: three commands were read, one was started: it alone is pending, under its worker; its commit takes it off."""
    await play.send("a", 1, 2, 3)
    fence = await play.own("w1")
    first, *others = play.queued()
    await fence.answer(fence.start([first]))
    assert play.pending() == {first.entry: ("w1", 0)}
    assert await play.committed(fence, play.ended(first, 0, log=[1])) == ["applied"]
    assert play.pending() == {}
    for version, c in enumerate(others, 1):
        assert await play.committed(fence, play.ended(c, version, log=[1])) == ["applied"]


async def test_a_group_that_somebody_destroyed_is_made_anew(play: Stage) -> None:
    """P3: XGROUP DESTROY between two starts: the second one makes the group again; what the first one claimed still commits."""
    await play.send("a", 1, 2)
    one, two = play.queued()
    fence = await play.own("w1")
    await fence.answer(fence.start([one]))
    play.redis.xgroup_destroy(play.part.commands, "workers")
    await fence.answer(fence.start([two]))
    assert play.pending() == {two.entry: ("w1", 0)}
    assert await play.committed(fence, play.ended(one, 0, log=[1]), play.ended(two, 1, log=[1, 2])) == ["applied", "applied"]


async def test_no_step_runs_before_its_start_is_answered(play: Stage, hooks: dict) -> None:
    """P3: the start's answer is held back: code that may touch the world does not begin. The owner is fenced meanwhile: it never
    begins here."""
    gate, ran = Gate(), []

    async def work(self: object, ctx: object, n: int) -> None:
        gate.came.append(n)
        await ctx.step("touch", ran.append, n)  # type: ignore[attr-defined]

    hooks["work"] = work

    async with play.worker(lease_ms=600) as worker:
        held = Held(worker._router, "start")
        [id] = await play.send("a", 1, transition="work")
        await wait_until(lambda: held.answered)
        [partition] = worker.partitions.values()
        other = await play.take_over("w9")
        await wait_until(lambda: partition.closed)
        await held.release()
        for _ in range(20):
            await asyncio.sleep(0)
        assert gate.came == ran == []
        assert worker._shop.slots.free == worker.settings.concurrency
        assert await lease.release(play.router, play.part, other.token)
        assert await play.outcome(id) == "completed"
        assert ran == [1]


async def test_an_attempt_whose_tenure_ends_before_it_begins_does_nothing(
    play: Stage, hooks: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3, I1: the attempt's task was made, the tenure is lost in the same turn, then the task gets its turn: the body must not begin,
    its step not run, and its slot must come back, though a commit before it is never answered."""
    ran: list[int] = []

    async def work(self: object, ctx: object, n: int) -> None:
        await ctx.step("touch", ran.append, n)  # type: ignore[attr-defined]

    hooks["work"] = work
    async with play.worker() as worker:
        [partition] = worker.partitions.values()
        held = Held(worker._router, "commit")
        spawn, made = partition.spawn, []

        def spawned(work: Coroutine[Any, Any, None]) -> object:
            task = spawn(work)
            if work.__name__ == "undoable":
                made.append(task)
                partition.lose(Rewound())
            return task

        monkeypatch.setattr(partition, "spawn", spawned)
        await play.send("a", 1)
        await wait_until(lambda: held.answered)
        [id] = await play.send("a", 2, transition="work")
        await wait_until(lambda: made)
        await asyncio.wait(made, timeout=10)
        assert made[0].done()
        await held.release()
        assert await play.outcome(id) == "completed"
        assert worker._shop.slots.free == worker.settings.concurrency
    assert ran == [2]
    assert play.log("a") == [1, 2]


@pytest.mark.leaves_work
async def test_a_start_of_a_cancelled_command_says_so(play: Stage) -> None:
    """P3: between the read and the start the command was cancelled: the start claims the others and names the one that is gone."""
    ids = await play.send("a", 1, 2)
    one, two = play.queued()
    fence = await play.own("w1")
    assert await play.client.cancel(ids[0]) == "cancelled"
    assert await fence.answer(fence.start([one, two])) == [b"done", 1]
    assert play.pending() == {two.entry: ("w1", 0)}


async def test_a_pure_command_is_claimed_before_anything_of_it_is_recorded(play: Stage, hooks: dict) -> None:
    """P3: a fresh pure command is not claimed. It raises and backs off, its owner hands over: it is pending by then, so the next one
    reads its journal and counts on, and takes the journal away with the end."""
    attempts: list[int] = []

    def pure(self: object, ctx: object, n: int) -> None:
        attempts.append(ctx.attempt)  # type: ignore[attr-defined]
        if ctx.attempt < 7:  # type: ignore[attr-defined]
            raise RuntimeError("not yet")

    hooks["pure"] = pure
    async with play.worker():
        [id] = await play.send("a", 1, transition="pure")
        await wait_until(lambda: len(attempts) >= 3)
        assert len(play.pending()) == 1
    first_owner_s = len(attempts)
    async with play.worker():
        assert await play.outcome(id) == "completed"
    assert attempts[first_owner_s] > 1 and attempts[-1] == 7
    assert play.pending() == {}


async def test_what_nobody_had_begun_needs_no_claim_after_a_hand_over(play: Stage) -> None:
    """P3: commands that waited in the stream when an owner handed over run like fresh ones: each once, in order, none pending."""
    await play.own("w1")
    ids = await play.send("a", *range(1, 200))
    play.abandon()
    async with play.worker():
        assert await play.outcome(ids[-1]) == "completed"
        assert play.pending() == {}
    assert play.log("a") == list(range(1, 200))
