"""P12 Own copy; P13 no outside effect on uncommitted state."""

from __future__ import annotations

import asyncio
from typing import Any

from statemq import Reject
from tests.integration.races.stage import Gate, Held, Stage
from tests.waiting import wait_until


async def test_what_an_attempt_that_raised_has_changed_is_not_committed(play: Stage, hooks: dict[str, Any]) -> None:
    """P12: attempt 1 appends to the instance's list and raises; attempt 2, and the next command, must find the list as committed."""
    seen: list[list[int]] = []

    async def fail_once(self: Any, ctx: Any, n: int) -> None:
        seen.append(list(self.data.log))
        if ctx.attempt == 1:
            raise RuntimeError("once more")

    hooks["work"] = fail_once
    async with play.worker():
        await play.send("a", 0)
        [id] = await play.send("a", 1, transition="work")
        [last] = await play.send("a", 2)
        assert await play.outcome(id) == await play.outcome(last) == "completed"
    assert seen == [[0, 1], [0, 1]]
    assert play.log("a") == [0, 1, 2]


async def test_what_a_rejected_command_has_changed_is_not_committed(play: Stage, hooks: dict[str, Any]) -> None:
    """P12: a pure handler changes the data and then rejects; the next command of the same chain must not see it."""

    def refuse(self: Any, ctx: Any, n: int) -> None:
        if n == 2:
            raise Reject("no")

    hooks["pure"] = refuse
    handles = await play.client.send_many([play.machine.pure("a", n=n) for n in (1, 2, 3)])
    async with play.worker():
        assert [(await h.outcome(timeout=10)).outcome for h in handles] == ["completed", "rejected", "completed"]
    assert play.log("a") == [1, 3]


async def test_what_happens_to_an_instance_after_its_handler_is_not_the_next_one_s(play: Stage, hooks: dict[str, Any]) -> None:
    """P12: a handler keeps a reference to the data and changes it later, while the commit is on its way: the cache has bytes."""
    kept: list[Any] = []
    hooks["pure"] = lambda self, ctx, n: kept.append(self.data)
    async with play.worker() as worker:
        held = Held(worker._router, "commit")
        [first] = await play.send("a", 1, transition="pure")
        await wait_until(lambda: kept)
        kept[0].log.append(99)
        [second] = await play.send("a", 2, transition="pure")
        await wait_until(lambda: len(kept) == 2)
        await held.release()
        assert await play.outcome(first) == await play.outcome(second) == "completed"
    assert play.log("a") == [1, 2]


async def test_a_step_waits_until_what_it_stands_on_is_committed(play: Stage, hooks: dict[str, Any]) -> None:
    """P13: e1's commit is executed, its answer is on its way. e2 may begin on e1's result, a pure e3 of another chain may run; but e2's
    first step, which the world sees, waits for the answer."""
    ran: list[int] = []
    gate = Gate()

    async def work(self: Any, ctx: Any, n: int) -> None:
        gate.came.append(n)
        await ctx.step("touch", ran.append, n)

    hooks["work"] = work
    async with play.worker() as worker:
        held = Held(worker._router, "commit")
        await play.send("a", 1)
        [second] = await play.send("a", 2, transition="work")
        await wait_until(lambda: held.answered and gate.came == [2])
        assert play.log("a") == [1]
        for _ in range(20):
            await asyncio.sleep(0)
        assert ran == []
        await held.release()
        assert await play.outcome(second) == "completed"
    assert ran == [2]


async def test_a_chain_whose_first_commit_was_not_applied_runs_again(play: Stage, hooks: dict[str, Any]) -> None:
    """P13: e1 is removed (cancelled by an operator) while its handler runs; e2, pure, and e3, with a step, have run on its result
    before the answer, gone, comes. Both run again, on what is stored; e3's step runs once, after that."""
    ran: list[tuple[int, list[int]]] = []
    bodies: list[int] = []

    def cancel_itself(self: Any, ctx: Any, n: int) -> None:
        bodies.append(n)
        if n == 1:
            play.redis.hdel(play.part.accepted, ctx.command_id)
            play.redis.xdel(play.part.commands, play.redis.xrange(play.part.commands)[0][0])

    async def work(self: Any, ctx: Any, n: int) -> None:
        bodies.append(n)
        await ctx.step("touch", lambda: ran.append((n, list(self.data.log))))

    hooks["pure"], hooks["work"] = cancel_itself, work
    async with play.worker() as worker:
        held = Held(worker._router, "commit")
        handles = await play.client.send_many([play.machine.pure("a", n=1), play.machine.pure("a", n=2), play.machine.work("a", n=3)])
        await wait_until(lambda: bodies == [1, 2, 3] and held.answered)
        assert ran == []
        await held.release()
        assert (await handles[2].outcome(timeout=10)).outcome == "completed"
    assert bodies == [1, 2, 3, 2, 3]
    assert ran == [(3, [2, 3])]
    assert play.log("a") == [2, 3]


async def test_an_instance_with_a_job_in_hand_is_not_forgotten(play: Stage) -> None:
    """P13: a's command has been given its slot, and does not run yet, when b comes and the cache, of one, is full."""
    async with play.worker(cache=1) as worker:
        slots, jobs = worker._shop.slots, list[Any]()
        [partition] = worker.partitions.values()
        slots._run = jobs.extend
        [one] = await play.send("a", 1)
        await wait_until(lambda: jobs)
        [two] = await play.send("b", 1)
        await wait_until(lambda: "b" in partition.lanes)
        assert "a" in partition.lanes
        del slots._run
        slots._run(jobs)
        assert await play.outcome(one) == await play.outcome(two) == "completed"


async def test_a_job_in_hand_does_not_overtake_the_chain_that_runs_again(play: Stage, hooks: dict[str, Any]) -> None:
    """P13: e1 was removed while it ran, e2 stands on it, and e3 has been given its slot when the answer, gone, comes, but does not run
    yet: it must go back behind e2, which is to run again; neither run before it nor on what was not applied."""
    bodies: list[int] = []

    def remove_itself(self: Any, ctx: Any, n: int) -> None:
        bodies.append(n)
        if n == 1:
            play.redis.hdel(play.part.accepted, ctx.command_id)
            play.redis.xdel(play.part.commands, play.redis.xrange(play.part.commands)[0][0])

    hooks["pure"] = remove_itself
    async with play.worker() as worker:
        held, slots = Held(worker._router, "commit"), worker._shop.slots
        await play.send("a", 1, 2, transition="pure")
        await wait_until(lambda: bodies == [1, 2] and held.answered)
        jobs: list[Any] = []
        slots._run = jobs.extend
        [three] = await play.send("a", 3, transition="pure")
        await wait_until(lambda: jobs)
        [partition] = worker.partitions.values()
        del slots._run
        await held.release()
        await wait_until(lambda: partition.lanes["a"].inflight == 0)
        slots._run(jobs)
        assert await play.outcome(three) == "completed"
    assert bodies == [1, 2, 2, 3]
    assert play.log("a") == [2, 3]


async def test_an_instance_with_a_commit_in_flight_is_not_forgotten(play: Stage, hooks: dict[str, Any]) -> None:
    """P13: the cache holds two instances. a's commit is in flight when others come: loading a again, before the commit, would
    give the next command an old state."""
    async with play.worker(cache=2) as worker:
        held = Held(worker._router, "commit")
        await play.send("a", 1)
        await wait_until(lambda: held.held)
        for key in "bcdef":
            await play.send(key, 1)
        [partition] = worker.partitions.values()
        await wait_until(lambda: {*"abcdef"} <= {*partition.lanes})
        assert partition.lanes["a"].inflight
        await held.release()
        [last] = await play.send("a", 2)
        assert await play.outcome(last) == "completed"
        await wait_until(lambda: play.log("f") == [1])
    assert play.log("a") == [1, 2]
