"""P15 Record is set-if-absent; P16 answers never queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.races.stage import NEVER, Held, Stage, wake
from tests.waiting import wait_until


@pytest.mark.leaves_work
async def test_the_first_record_stands_and_is_answered(play: Stage) -> None:
    """P15: attempt 1's step is slow, attempt 2 has recorded its own; then attempt 1's comes. Attempt 2's stands for ever, and the
    straggler is told so: whoever goes on, goes on with one value."""
    [id] = await play.send("a", 1)
    fence = await play.own()
    assert await fence.answer(fence.record([(id, "allocate", b"2", b"")])) == [b"done", b""]
    assert await fence.answer(fence.record([(id, "allocate", b"1", b""), (id, "other", b"3", b"")])) == [b"done", b"2", b""]
    assert play.redis.hgetall(play.part.steps(id)) == {"allocate": "2", "other": "3"}


@pytest.mark.leaves_work
async def test_engine_fields_are_overwritten(play: Stage) -> None:
    """P15: counts of attempts begin with @ and are the engine's own."""
    [id] = await play.send("a", 1)
    fence = await play.own()
    await fence.answer(fence.record([(id, "@attempts", b"1", b"")]))
    await fence.answer(fence.record([(id, "@attempts", b"2", b"")]))
    assert play.redis.hget(play.part.steps(id), "@attempts") == "2"


async def test_a_late_record_makes_no_journal(play: Stage) -> None:
    """P15: the command has ended; a threaded step of it that nobody stopped comes back and records: refused, or the journal would
    be there for ever."""
    [id] = await play.send("a", 1)
    [c] = play.queued()
    fence = await play.own()
    assert await play.committed(fence, play.ended(c, 0, log=[1])) == ["applied"]
    assert await fence.answer(fence.record([(id, "step", b"1", b""), (id, "@attempts", b"1", b"")])) == [b"done", None, None]
    assert play.redis.exists(play.part.steps(id)) == 0


async def test_a_straggling_thread_does_not_change_what_the_next_attempt_recorded(play: Stage, hooks: dict[str, Any]) -> None:
    """P15: attempt 1's blocking step times out and goes on in its thread; attempt 2 runs it again and records 2; the thread ends
    with 1 afterwards. The transition goes on with 2, and so does a replay."""
    first_goes_on, calls, seen = threading.Event(), [], []

    def slow() -> int:
        calls.append(1)
        mine = len(calls)
        if mine == 1:
            first_goes_on.wait(10)
        return mine

    async def work(self: Any, ctx: Any, n: int) -> None:
        timeout = 0.02 if ctx.attempt == 1 else 10
        seen.append(await ctx.step("slow", slow, timeout=timeout))
        first_goes_on.set()
        seen.append(await ctx.step("after", lambda: seen[-1]))

    hooks["work"] = work
    async with play.worker():
        [id] = await play.send("a", 1, transition="work")
        assert await play.outcome(id) == "completed"
    assert seen == [2, 2]


async def test_the_code_goes_on_with_the_record_that_stands(play: Stage, hooks: dict[str, Any]) -> None:
    """P15: while a step runs, another attempt's record of it gets into the journal: this one's result is not what the code sees."""
    seen = []

    async def work(self: Any, ctx: Any, n: int) -> None:
        def touch() -> int:
            play.redis.hset(play.part.steps(ctx.command_id), "touch", '{"result":7}')
            return 1

        seen.append(await ctx.step("touch", touch))

    hooks["work"] = work
    async with play.worker():
        [id] = await play.send("a", 1, transition="work")
        assert await play.outcome(id) == "completed"
    assert seen == [7]


async def test_a_cancel_that_comes_before_the_postpone_is_found_by_it(play: Stage) -> None:
    """P16: a command is asked to cancel while its postpone is on its way: it must not fall asleep on that, its key is ready at once."""
    [id] = await play.send("a", 1)
    [c] = play.queued()
    fence = await play.own()
    await fence.answer(fence.start([c]))
    await fence.answer(fence.record([(id, "step", b'{"result":1}', b"")]))
    assert await play.client.cancel(id) == "asked"
    assert await fence.answer(fence.postpone(c, [], [], due_ms=NEVER, wake_data=wake("a"))) == b"ready"
    assert play.redis.zscore(play.part.ready, "a") is not None
    assert play.redis.zcard(play.part.timers) == 0
    play.abandon()
    async with play.worker():
        assert await play.outcome(id) == "cancelled"


async def test_a_cancel_that_comes_after_the_postpone_wakes_it(play: Stage, hooks: dict[str, Any]) -> None:
    """P16: the other order: it sleeps already, for long."""
    hooks["work"] = lambda self, ctx, n: ctx.sleep(NEVER / 1000)
    async with play.worker():
        [id] = await play.send("a", 1, transition="work")
        await wait_until(lambda: play.redis.zscore(play.part.timers, id))
        assert await play.client.cancel(id) == "asked"
        assert await play.outcome(id) == "cancelled"
        assert play.redis.zcard(play.part.timers) == 0


async def test_a_wake_up_of_a_command_that_is_not_the_head_does_nothing_but_go(play: Stage) -> None:
    """P16: a timer of a command that ended, one of a command behind the head, and one that is not due: only the key's sleeping head
    gets a turn, and each spent timer is gone."""
    ids = await play.send("a", 1, 2)
    e1, e2 = play.queued()
    fence = await play.own()
    await fence.answer(fence.postpone(e1, [("@attempts", b"1")], [e2], due_ms=NEVER, wake_data=wake("a")))
    ended = "probe.0.ended"
    play.redis.zadd(play.part.timers, {ended: 1, ids[1]: 1})
    calls = [("wake", ended, "a", ()), ("wake", ids[1], "a", ()), ("wake", ids[0], "a", ())]
    assert await fence.answer(fence.wake(calls)) == [b"done", b"gone", b"gone", b"early"]
    assert play.redis.zscore(play.part.ready, "a") is None
    assert play.redis.zrange(play.part.timers, 0, -1) == [ids[0]]
    play.redis.zadd(play.part.timers, {ids[0]: 1})
    assert await fence.answer(fence.wake(calls[2:])) == [b"done", b"ready"]
    assert await fence.answer(fence.wake(calls[2:])) == [b"done", b"gone"]
    play.abandon()
    async with play.worker():
        assert await play.outcome(ids[1]) == "completed"


async def test_the_script_that_ends_a_command_takes_its_wake_up_along(play: Stage) -> None:
    """P16: it ends by another way than its timer (here: the owner ran it early): no timer is left for it."""
    [id] = await play.send("a", 1)
    [c] = play.queued()
    fence = await play.own()
    await fence.answer(fence.postpone(c, [("@attempts", b"1")], [], due_ms=NEVER, wake_data=wake("a")))
    c.parked = c.journalled = c.timed = True
    assert await play.committed(fence, play.ended(c, 0, log=[1])) == ["applied"]
    assert play.redis.exists(play.part.timers, play.part.timers_data, play.part.steps(id), play.part.inbox("a")) == 0


async def test_two_branches_that_record_at_one_time_share_a_call(play: Stage, hooks: dict[str, Any]) -> None:
    """P15: concurrent branches have names of their own, and each gets its own record."""
    got = []

    async def work(self: Any, ctx: Any, n: int) -> None:
        got.extend(await asyncio.gather(*(ctx.step(f"s{i}", lambda i=i: i) for i in range(20))))

    hooks["work"] = work
    async with play.worker():
        [id] = await play.send("a", 1, transition="work")
        assert await play.outcome(id) == "completed"
    assert got == list(range(20))


@pytest.mark.parametrize("ends_first", [True, False])
async def test_a_cancel_of_what_runs_its_first_step_only_asks(play: Stage, hooks: dict[str, Callable[..., Any]], ends_first: bool) -> None:
    """P28: nothing of it is recorded yet, but its first step is under way: "cancelled" would say that it has not run. It is asked, the
    step is cancelled where it stands, and the journal that the request began goes with it; also if it completes before its owner hears of
    that."""
    at_work, go_on, ran = asyncio.Event(), asyncio.Event(), list[str]()

    async def charge() -> None:
        at_work.set()
        await go_on.wait()
        ran.append("charged")

    hooks["work"] = lambda self, ctx, n: ctx.step("charge", charge)
    async with play.worker() as worker:
        [id] = await play.send("a", 1, transition="work")
        await asyncio.wait_for(at_work.wait(), 20)
        if ends_first:  # the look is not heard
            (partition,) = worker.partitions.values()
            partition._look = lambda key: None  # type: ignore[method-assign]
        assert await play.client.cancel(id) == "asked"
        if ends_first:
            go_on.set()
        outcome = await play.client.handle(id).outcome(timeout=20)
        assert outcome.outcome == ("completed" if ends_first else "cancelled")
        assert ran == (["charged"] if ends_first else [])
        await wait_until(lambda: not play.redis.exists(play.part.steps(id), play.part.accepted))


@pytest.mark.parametrize("tried", [False, True])
async def test_a_cancel_of_what_was_claimed_and_put_back_is_not_overlooked(
    play: Stage, hooks: dict[str, Callable[..., Any]], tried: bool
) -> None:
    """P28: its start was on its way when the machine was paused, so it was claimed and put back. Who cancels it then asks; when the machine
    is resumed it ends as cancelled, and its code does not run (again)."""
    ran: list[int] = []

    async def work(self: Any, ctx: Any, n: int) -> None:
        ran.append(n)
        if tried and len(ran) == 2:
            raise OSError("once more")

    hooks["work"] = work
    async with play.worker() as worker:
        (partition,) = worker.partitions.values()
        await play.send("a", 0, transition="work")
        await wait_until(lambda: ran == [0])
        held = Held(worker._router, "start") if not tried else None
        [id] = await play.send("a", 1, transition="work")
        if tried:
            await wait_until(lambda: partition.lanes["a"].backing_off or len(ran) > 2)
            held = Held(worker._router, "start")
        assert held is not None
        await wait_until(lambda: held.answered or len(ran) > 2)
        await play.client.pause("probe")
        await wait_until(lambda: partition.paused)
        if tried:
            assert await play.client.cancel(id) == "asked"
        await held.release()
        await wait_until(lambda: not partition.lanes["a"].prepared)
        if not tried:
            assert await play.client.cancel(id) == "asked"
        await wait_until(lambda: not play.redis.hexists(play.part.accepted, "@look:a"))
        before = len(ran)
        await play.client.resume("probe")
        assert await play.outcome(id) == "cancelled"
        assert len(ran) == before
