"""P14 Reclaim and suspects: who is blamed for a crash, and what becomes of a command that kills its worker."""

from __future__ import annotations

from typing import Any

import pytest

from statemq.store.fence import Fence
from statemq.store.lease import Acquired
from tests.integration.races.stage import NEVER, Gate, Stage, wake
from tests.waiting import wait_until


async def dies(play: Stage, fence: Fence, heir: str, n: int = 1) -> tuple[Fence, Acquired]:
    """The owner's process is gone (nobody is subscribed as it), and ``heir``, who saw that, owns the partition."""
    got = await play.acquire(heir, n, fence.token, silent=fence.worker)
    assert isinstance(got, Acquired)
    return Fence(play.router, play.part, got.token, heir), got


@pytest.mark.leaves_work
async def test_what_a_dead_owner_had_in_its_hands_counts_one_higher(play: Stage) -> None:
    """P14: w1 dies with e1 in progress, e2 only read: e1's count is one higher, e2 has none."""
    await play.send("a", 1)
    await play.send("b", 1)
    e1, _ = play.queued()
    w1 = await play.own("w1")
    await w1.answer(w1.start([e1]))
    w2, got = await dies(play, w1, "w2")
    assert got.pending == {e1.entry: 1}
    e1.crashes = 1
    await w2.answer(w2.start([e1]))
    _, got = await dies(play, w2, "w3")
    assert got.pending == {e1.entry: 2}


@pytest.mark.leaves_work
async def test_a_death_is_not_put_on_what_another_owner_had_begun(play: Stage) -> None:
    """P14: e1 was in progress with w1, who handed over; w2 began e2 and died. e2 is a suspect; e1, which w2 never touched, is not."""
    await play.send("a", 1)
    await play.send("b", 1)
    e1, e2 = play.queued()
    w1 = await play.own("w1")
    await w1.answer(w1.start([e1]))
    w2 = await play.take_over("w2")
    await w2.answer(w2.start([e2]))
    _, got = await dies(play, w2, "w3")
    assert got.pending == {e1.entry: 0, e2.entry: 1}


@pytest.mark.leaves_work
async def test_an_owner_that_begins_anew_still_knows_who_died(play: Stage) -> None:
    """P14: w2 inherits from the dead w1, is rewound before it has started anything, and acquires again: e1 still counts one higher."""
    await play.send("a", 1)
    [e1] = play.queued()
    w1 = await play.own("w1")
    await w1.answer(w1.start([e1]))
    w2, first = await dies(play, w1, "w2")
    again = await play.acquire("w2", 2, w2.token)
    assert isinstance(again, Acquired)
    assert again.pending == first.pending == {e1.entry: 1}


@pytest.mark.leaves_work
async def test_a_command_that_sleeps_is_in_nobody_s_hands(play: Stage) -> None:
    """P14: e1 ran from its inbox (and was marked), then went to sleep. Its worker dies of something else: e1 is not to blame."""
    [id] = await play.send("a", 1)
    [e1] = play.queued()
    w1 = await play.own("w1")
    await w1.answer(w1.park({"a": [e1]}, {"a": True}))
    e1.parked = True
    await w1.answer(w1.start([e1]))
    assert play.redis.hget(play.part.steps(id), "@mark") == "w1 0"
    await w1.answer(w1.postpone(e1, [("@crashes", b"1")], [], due_ms=NEVER, wake_data=wake("a")))
    assert play.redis.hgetall(play.part.steps(id)) == {"@crashes": "1"}
    assert play.pending() == {}


@pytest.mark.parametrize("where", ["stream", "inbox"])
async def test_a_killer_is_buried_at_its_last_lonely_crash(play: Stage, hooks: dict[str, Any], where: str) -> None:
    """P14: e1 has killed five workers, three of them while it ran alone; the fifth one's heir does not run it again: it is buried,
    and the key's next command runs. The same for one that ran from its inbox, whose count is in its journal."""
    gate = Gate()
    gate.let_all()
    hooks["work"] = lambda self, ctx, n: gate(n)
    [id, after] = await play.send("a", 1, 2, transition="work")
    e1, _ = play.queued()
    w1 = await play.own("w1")
    if where == "inbox":
        await w1.answer(w1.park({"a": play.queued()}, {"a": True}))
        e1.parked = True
    e1.crashes = 4
    await w1.answer(w1.start([e1]))
    play.abandon()
    async with play.worker():
        assert await play.outcome(id) == "failed"
        assert await play.outcome(after) == "completed"
    assert gate.came == [2]
    assert play.redis.xlen(play.part.failed) == 1


@pytest.mark.parametrize("where", ["stream", "inbox"])
async def test_a_suspect_runs_alone_and_its_neighbours_do_not_pay(play: Stage, hooks: dict[str, Any], where: str) -> None:
    """P14: e1 was in progress in two crashes: it runs with nothing else in the process, neither before nor while; then others go on."""
    gate, together = Gate(), []
    running: set[int] = set()

    async def work(self: Any, ctx: Any, n: int) -> None:
        running.add(n)
        together.append(set(running))
        await gate(n)
        running.discard(n)

    hooks["work"] = work
    [id] = await play.send("a", 1, transition="work")
    [e1] = play.queued()
    w1 = await play.own("w1")
    if where == "inbox":
        await w1.answer(w1.park({"a": [e1]}, {"a": True}))
        e1.parked = True
    e1.crashes = 1
    await w1.answer(w1.start([e1]))
    play.abandon()
    async with play.worker() as worker:
        await wait_until(lambda: gate.came == [1])
        others = [(await play.send(f"k{n}", n, transition="work"))[0] for n in (2, 3)]
        [partition] = worker.partitions.values()
        await wait_until(lambda: partition.held == 3)

        def settled() -> bool:
            """Whoever may run has begun, the others wait for their turn."""
            return not partition.slots._due and all(n in gate.came or partition.lanes[f"k{n}"].offered for n in (2, 3))

        await wait_until(settled)
        assert gate.came == [1]
        gate.let(1)
        await wait_until(lambda: set(gate.came) == {1, 2, 3})
        gate.let_all()
        for other in [id, *others]:
            assert await play.outcome(other) == "completed"
    assert all(len(s) == 1 for s in together if 1 in s)


@pytest.mark.leaves_work
async def test_a_fenced_owner_leaves_counts_as_they_were(play: Stage) -> None:
    """P14: w1 was stopped, not dead: it is still subscribed when its deadline has passed."""
    await play.send("a", 1)
    [e1] = play.queued()
    w1 = await play.own("w1")
    await w1.answer(w1.start([e1]))
    play.abandon()
    with play.redis.pubsub() as stopped:
        stopped.ssubscribe(play.part.alive_channel("w1"))
        stopped.get_message(timeout=1)
        got = await play.acquire("w2", 1, w1.token, owner="w1")
    assert isinstance(got, Acquired)
    assert got.pending == {e1.entry: 0}
