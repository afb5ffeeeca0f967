"""P14 Reclaim and suspects: who is blamed for a crash, and what becomes of a command that kills its worker."""

from __future__ import annotations

from typing import Any

import pytest

from statemq.store.fence import Fence
from statemq.store.lease import Acquired
from statemq.worker import suspects
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


@pytest.mark.parametrize("where", ["stream", "inbox"])
async def test_a_recorded_step_clears_its_command(play: Stage, hooks: dict[str, Any], where: str) -> None:
    """P14: e1 has died four times, two of them alone: one more buries it. Now it records a step: it makes progress, so what died while it
    ran before says nothing against it, neither in the group nor in its journal, and it is no suspect any more: others run beside it."""
    gate = Gate()

    async def work(self: Any, ctx: Any, n: int) -> None:
        await ctx.step("step", lambda: n)
        await gate(n)

    hooks["work"] = work
    [id] = await play.send("a", 1, transition="work")
    [e1] = play.queued()
    w1 = await play.own("w1")
    if where == "inbox":
        await w1.answer(w1.park({"a": [e1]}, {"a": True}))
        e1.parked = True
        await w1.answer(w1.record([(id, "@crashes", b"3", b"")]))
    await w1.answer(w1.record([(id, "@crowd", b"w0 1 1 3", b"")]))
    e1.crashes = 3
    await w1.answer(w1.start([e1]))
    play.abandon()
    async with play.worker(max_crashes=3) as worker:
        await wait_until(lambda: gate.came == [1])

        def count() -> int:
            if where == "stream":
                return play.pending()[e1.entry][1]
            name, _, crashes = play.redis.hget(play.part.steps(id), "@mark").partition(" ")
            return int(crashes) if name == worker.id else -1

        await wait_until(lambda: count() == 0)
        assert play.redis.hget(play.part.steps(id), "@crowd") == ""
        other = (await play.send("b", 2, transition="work"))[0]
        await wait_until(lambda: gate.came == [1, 2])
        gate.let_all()
        assert await play.outcome(id) == await play.outcome(other) == "completed"


@pytest.mark.leaves_work
async def test_what_sleeps_after_a_recorded_step_has_no_deaths_left(play: Stage, hooks: dict[str, Any]) -> None:
    """P14: the count of a command that leaves memory lies in its journal; one that has gone on takes none of its deaths with it."""

    async def work(self: Any, ctx: Any, n: int) -> None:
        await ctx.sleep(3600)

    hooks["work"] = work
    [id] = await play.send("a", 1, transition="work")
    [e1] = play.queued()
    w1 = await play.own("w1")
    await w1.answer(w1.park({"a": [e1]}, {"a": True}))
    await w1.answer(w1.record([(id, "@crashes", b"3", b"")]))
    play.abandon()
    async with play.worker():
        await wait_until(lambda: play.redis.hget(play.part.steps(id), "@crashes") == "0")


@pytest.mark.leaves_work
async def test_a_suspect_that_is_parked_keeps_its_count(play: Stage) -> None:
    """P14: e1 has died three times; its instance is paused, so it moves to the inbox, and the group forgets it."""
    [id] = await play.send("a", 1, transition="work")
    [e1] = play.queued()
    w1 = await play.own("w1")
    e1.crashes = 2
    await w1.answer(w1.start([e1]))
    await play.client.pause(play.config.machine, "a")
    play.abandon()
    async with play.worker():
        await wait_until(lambda: play.redis.hget(play.part.steps(id), "@crashes") == "3")


async def test_a_suspect_that_lives_long_has_company(play: Stage, hooks: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """P14, I2: alone for a while, then others run beside it; a death from then on is not a lonely one, but one of the only suspect."""
    monkeypatch.setattr(suspects, "ALONE_S", 0.2)
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    [id] = await play.send("a", 1, transition="work")
    [e1] = play.queued()
    w1 = await play.own("w1")
    e1.crashes = 1
    await w1.answer(w1.start([e1]))
    play.abandon()
    async with play.worker() as worker:
        await wait_until(lambda: gate.came == [1])
        assert play.pending()[e1.entry][1] == 2
        other = (await play.send("b", 2, transition="work"))[0]
        await wait_until(lambda: gate.came == [1, 2])
        gate.let(2)
        assert await play.outcome(other) == "completed"
        await wait_until(lambda: play.pending()[e1.entry][1] == 1)
        await wait_until(lambda: play.redis.hget(play.part.steps(id), "@crowd") == f"{worker.id} 1 0 0")
        gate.let_all()
        assert await play.outcome(id) == "completed"


async def test_suspects_that_fell_together_run_one_after_the_other(
    play: Stage, hooks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P14: w1 died while e1 and e2 ran in company, both suspects: which of them kills is not known. The next time only one of them runs,
    so that it will be; what is no suspect does not wait for them."""
    monkeypatch.setattr(suspects, "ALONE_S", 0.2)
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    ids = [(await play.send(f"k{n}", n, transition="work"))[0] for n in (1, 2)]
    commands = play.queued()
    w1 = await play.own("w1")
    for c in commands:
        c.crashes = 1
    await w1.answer(w1.start(commands))
    await w1.answer(w1.record([(id, "@crowd", b"w1 2 0 0", b"") for id in ids]))
    play.abandon()
    async with play.worker() as worker:
        await wait_until(lambda: gate.came == [1])
        others = [(await play.send(f"k{n}", n, transition="work"))[0] for n in (3, 4)]
        await wait_until(lambda: set(gate.came) == {1, 3, 4})
        await wait_until(lambda: play.redis.hget(play.part.steps(ids[0]), "@crowd") == f"{worker.id} 1 1 0")
        gate.let(3)
        gate.let(4)
        for other in others:
            assert await play.outcome(other) == "completed"
        assert 2 not in gate.came
        gate.let(1)
        await wait_until(lambda: 2 in gate.came)
        gate.let_all()
        for id in ids:
            assert await play.outcome(id) == "completed"


async def test_suspects_run_beside_each_other_as_long_as_none_has_fallen(
    play: Stage, hooks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """I2: two innocent long commands, each of which has seen two owners die, are not put one behind the other's end."""
    monkeypatch.setattr(suspects, "ALONE_S", 0.2)
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    ids = [(await play.send(f"k{n}", n, transition="work"))[0] for n in (1, 2)]
    commands = play.queued()
    w1 = await play.own("w1")
    for c in commands:
        c.crashes = 1
    await w1.answer(w1.start(commands))
    play.abandon()
    async with play.worker() as worker:
        await wait_until(lambda: gate.came == [1, 2])
        for id in ids:  # both know that there are two
            await wait_until(lambda id=id: play.redis.hget(play.part.steps(id), "@crowd") == f"{worker.id} 2 0 0")  # type: ignore[misc]
        gate.let(1)
        assert await play.outcome(ids[0]) == "completed"
        await wait_until(lambda: play.redis.hget(play.part.steps(ids[1]), "@crowd") == f"{worker.id} 1 0 0")
        gate.let_all()
        assert await play.outcome(ids[1]) == "completed"


async def test_who_fell_too_often_as_the_only_suspect_is_buried(play: Stage, hooks: dict[str, Any]) -> None:
    """P14: it kills after it has been alone for a while: that counts by itself, and twice as much is allowed."""
    gate = Gate()
    gate.let_all()
    hooks["work"] = lambda self, ctx, n: gate(n)
    [id] = await play.send("a", 1, transition="work")
    [e1] = play.queued()
    w1 = await play.own("w1")
    e1.crashes = 1
    await w1.answer(w1.start([e1]))
    await w1.answer(w1.record([(id, "@crowd", b"w1 1 0 3", b"")]))
    play.abandon()
    async with play.worker(max_crashes=2):
        outcome = await play.client.handle(id).outcome(timeout=20)
    assert outcome.outcome == "failed"
    assert outcome.reason == (
        "its worker's process died 6 times while it ran, 0 of them while it ran alone, 4 of them after it had run alone for a while"
    )
    assert gate.came == []
