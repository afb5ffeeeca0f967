"""P11 @look: who makes something runnable, due, paused or cancelled tells the owner by the stream it reads. P17 slots."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from statemq.store.commands import Queued
from tests.integration.races.stage import NEVER, Gate, Held, Stage, wake
from tests.waiting import wait_until


async def test_a_look_that_is_read_while_the_row_is_on_its_way_is_not_forgotten(play: Stage, hooks: dict[str, Any]) -> None:
    """P11: the owner has asked for an instance; the answer, not paused, is on its way when the instance is paused and the look is
    read. The answer is older than the look: nothing may start on it."""
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    gate.let_all()
    async with play.worker() as worker:
        held = Held(worker._router, "load")
        [id] = await play.send("a", 1, transition="work")
        await wait_until(lambda: held.answered)
        await play.client.pause("probe", "a")
        await wait_until(lambda: play.redis.hget(play.part.accepted, "@look:a") is None)
        await held.release()
        await wait_until(lambda: play.inbox("a") == [id])
        assert gate.came == []
        await play.client.resume("probe", "a")
        assert await play.outcome(id) == "completed"


async def test_a_wake_up_does_not_start_anything_on_a_paused_instance(play: Stage, hooks: dict[str, Any]) -> None:
    """P11: e1 sleeps, e2 waits behind it, the instance is paused; then e1's timer fires. Neither goes on until the resume, which must
    find them though the timer is gone."""
    gate = Gate()
    gate.let_all()

    async def work(self: Any, ctx: Any, n: int) -> None:
        if n == 1:
            await ctx.sleep(NEVER / 1000)
        await gate(n)

    hooks["work"] = work
    async with play.worker() as worker:
        [one, two] = await play.send("a", 1, 2, transition="work")
        await wait_until(lambda: play.inbox("a") == [one, two] and play.redis.zscore(play.part.timers, one))
        await play.client.pause("probe", "a")
        await wait_until(lambda: play.redis.hget(play.part.accepted, "@look:a") is None)
        record = play.redis.hget(play.part.steps(one), "sleep@1")
        play.redis.hset(play.part.steps(one), "sleep@1", record.replace(f'"due":{record.split("due")[1][2:].rstrip("}")}', '"due":1'))
        play.redis.zadd(play.part.timers, {one: 1})
        [partition] = worker.partitions.values()
        partition._look("")
        await wait_until(lambda: play.redis.zscore(play.part.timers, one) is None)
        [other] = await play.send("b", 3, transition="work")
        assert await play.outcome(other) == "completed"
        assert gate.came == [3]
        await play.client.resume("probe", "a")
        assert await play.outcome(two) == "completed"
        assert gate.came == [3, 1, 2]


async def test_what_is_due_earlier_is_heard_of(play: Stage) -> None:
    """P11: the owner sleeps until a far timer; a delayed command that is due sooner is appended: the look wakes it."""
    async with play.worker():
        [far] = await play.send("a", 1, delay=10_000)
        await wait_until(lambda: play.redis.xlen(play.part.commands) == 0)
        [near] = await play.send("b", 1, delay=0.01)
        assert await play.outcome(near) == "completed"
        assert await play.client.cancel(far) == "cancelled"


async def test_looks_merge_while_one_waits(play: Stage) -> None:
    """P11: a hundred pauses and resumes of one key leave one entry in the stream; reading it takes its field away, so that the
    next one is told again."""
    for _ in range(50):
        await play.client.pause("probe", "a")
        await play.client.resume("probe", "a")
    assert play.redis.xlen(play.part.commands) == 1
    async with play.worker():
        await wait_until(lambda: play.redis.xlen(play.part.commands) == 0)
        assert play.redis.hlen(play.part.accepted) == 0
        await play.client.pause("probe", "a")
        await wait_until(lambda: play.redis.xlen(play.part.commands) == 0)


async def test_a_machine_s_pause_lies_in_the_leases(play: Stage) -> None:
    """P11: the machine is paused while nobody owns the partition; who acquires it knows; the resume starts what waits."""
    await play.client.pause("probe")
    [id] = await play.send("a", 1)
    async with play.worker() as worker:
        [partition] = worker.partitions.values()
        assert partition.paused
        await wait_until(lambda: partition.held == 1)
        await play.client.resume("probe")
        assert await play.outcome(id) == "completed"


async def test_a_due_time_told_while_the_timers_are_read_is_not_forgotten(play: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """P11: the owner has asked for its earliest timer; the answer, none, is handled in the very turn in which a look says that one is
    due now. The answer is older: it must not put the alarm out."""
    async with play.worker() as worker:
        [partition] = worker.partitions.values()
        ask, told = partition.ask, False

        async def asked(command: str, key: str, *args: Any) -> Any:
            nonlocal told
            answer = await ask(command, key, *args)
            if command == "ZRANGE" and not told:
                told = True
                id = await asleep(play, partition.fence)
                partition._look("")
                monkeypatch.undo()
                assert id
            return answer

        monkeypatch.setattr(partition, "ask", asked)
        partition._look("")
        await wait_until(lambda: told)
        await wait_until(lambda: play.log("a") == [1])


async def asleep(play: Stage, fence: Any) -> str:
    """A command that waits, due now, put there by the owner's own fence."""
    await play.router.call(play.part.commands, "HSET", play.part.accepted, "probe.0.x", "1-1")
    c = Queued("1-1", "probe.0.x", "a", "note", b'{"n":1}')
    await fence.answer(fence.postpone(c, [], [], due_ms=1, wake_data=wake("a")))
    return c.id


async def test_branches_that_sleep_share_their_command_s_slot(play: Stage, hooks: dict[str, Any]) -> None:
    """P17: --concurrency 1; two branches of a command sleep and wake while another command's code runs. Both want the slot back: it is
    one command, and needs one; else the second branch waits for ever, and the command with it."""
    gate = Gate()

    async def work(self: Any, ctx: Any, n: int) -> None:
        if n == 1:
            await asyncio.gather(ctx.sleep(0.3), ctx.sleep(0.3))
        else:
            await gate(n)

    hooks["work"] = work
    async with play.worker(concurrency=1) as worker:
        [one] = await play.send("a", 1, transition="work")
        await wait_until(lambda: worker._shop.slots.free == 1 and play.redis.hlen(play.part.steps(one)) >= 3)
        [two] = await play.send("b", 2, transition="work")
        await wait_until(lambda: gate.came == [2] and worker._shop.slots._returning)
        gate.let_all()
        assert await play.outcome(one) == await play.outcome(two) == "completed"
        assert worker._shop.slots.free == 1


async def test_with_one_slot_commands_run_one_at_a_time_and_sleepers_let_others_pass(play: Stage, hooks: dict[str, Any]) -> None:
    """P17: of three keys one sleeps: the others pass it, one after the other."""
    running, most, order = 0, 0, []

    async def work(self: Any, ctx: Any, n: int) -> None:
        nonlocal running, most
        while n == 0 and len(order) < 3:
            await ctx.sleep(0.05)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        order.append(n)
        running -= 1

    hooks["work"] = work
    async with play.worker(concurrency=1):
        handles = await play.client.send_many([play.machine.work(f"k{n}", n=n) for n in range(4)])
        for h in handles:
            await h.result(timeout=60)
    assert most == 1
    assert order[-1] == 0


async def test_a_resume_between_the_look_at_a_paused_instance_and_its_park_is_not_lost(play: Stage) -> None:
    """The owner has read e1 and that its instance is paused, and is about to park it; the resume comes first. It finds no inbox to
    make ready, so the park does."""
    await play.client.pause("probe", "a")
    await play.send("a", 1)
    [one] = play.queued("a")
    fence = await play.own()
    await play.client.resume("probe", "a")
    assert await fence.answer(fence.park({"a": [one]}, {"a": False})) == [b"done"]
    assert play.redis.zscore(play.part.ready, "a") is not None
    play.abandon()
    async with play.worker():
        assert await play.outcome(one.id) == "completed"


async def test_what_is_parked_while_its_instance_is_paused_waits(play: Stage) -> None:
    """The same without the resume."""
    await play.client.pause("probe", "a")
    await play.send("a", 1)
    [one] = play.queued("a")
    fence = await play.own()
    assert await fence.answer(fence.park({"a": [one]}, {"a": False})) == [b"done"]
    assert play.redis.zscore(play.part.ready, "a") is None
    play.abandon()
    async with play.worker():
        await play.client.resume("probe", "a")
        assert await play.outcome(one.id) == "completed"
