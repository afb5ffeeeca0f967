"""P19 Check, then write; P20 one bad command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from statemq import keys
from statemq.store import outcome
from statemq.store.commit import words
from statemq.store.fence import Fence, ScriptFailed
from statemq.store.router import Router
from statemq.store.wire import ReplyError
from tests.faulty import FaultyProxy
from tests.integration.races.stage import NEVER, Held, Stage, wake
from tests.waiting import wait_until


async def test_an_entry_that_somebody_acked_does_not_cost_the_others(play: Stage) -> None:
    """P19: a batch of three, of which one was acknowledged by hand (or by a straggler): XACK decides nothing, all three are applied.
    ("XACK must answer 1" lost the others of the batch.)"""
    for key in "abc":
        await play.send(key, 1)
    commands = play.queued()
    fence = await play.own()
    await fence.answer(fence.start(commands))
    play.redis.xack(play.part.commands, "workers", commands[1].entry)
    assert await play.committed(fence, *(play.ended(c, 0, log=[1]) for c in commands)) == ["applied"] * 3


async def test_each_command_has_its_own_answer(play: Stage) -> None:
    """P19: of one batch, a's command was cancelled meanwhile, b's instance was changed by hand, c's is as expected: gone, conflict,
    applied; the first two change nothing."""
    ids = [(await play.send(key, 1))[0] for key in "abc"]
    commands = play.queued()
    fence = await play.own()
    await fence.answer(fence.start(commands[1:]))
    assert await play.client.cancel(ids[0]) == "cancelled"
    play.redis.hset(play.part.instance("b"), mapping={"state": "IDLE", "version": 7, "data": "{}"})
    assert await play.committed(fence, *(play.ended(c, 0, log=[1]) for c in commands)) == ["gone", "conflict", "applied"]
    assert (play.log("a"), play.log("c")) == ([], [1])
    assert play.redis.hget(play.part.instance("b"), "version") == "7"
    assert play.pending().keys() == {commands[1].entry}
    again = play.ended(commands[1], 7, log=[1])
    assert await play.committed(fence, again) == ["applied"]
    play.abandon()
    async with play.worker():
        await wait_until(lambda: play.redis.xlen(play.part.commands) == 0)  # the look of the cancel


async def test_a_version_mismatch_is_no_success(play: Stage) -> None:
    """P19: the mismatch must be found before anything is acked or deleted: the command is still there and not reported as done.
    (A mismatch after the ack reported done what was never applied.)"""
    [id] = await play.send("a", 1)
    [c] = play.queued()
    fence = await play.own()
    await fence.answer(fence.start([c]))
    assert await play.committed(fence, play.ended(c, 5, log=[1])) == ["conflict"]
    assert [q.id for q in play.queued()] == [id]
    assert play.pending().keys() == {c.entry}
    assert play.redis.exists(play.part.history, play.part.instance("a")) == 0
    assert await play.committed(fence, play.ended(c, 0, log=[1])) == ["applied"]


async def test_versions_are_counted_on_through_the_batch(play: Stage) -> None:
    """P19: three commands of a key and one that changes nothing, in one batch: each is checked against the one before it."""
    await play.send("a", 1, 2, 3, 4)
    e1, e2, e3, e4 = play.queued()
    fence = await play.own()
    batch = [play.ended(e1, 0, log=[1]), play.ended(e2, 1, log=[1, 2]), play.ended(e3, 2), play.ended(e4, 2, log=[1, 2, 4])]
    assert await play.committed(fence, *batch) == ["applied"] * 4
    assert play.redis.hget(play.part.instance("a"), "version") == "3"
    assert play.log("a") == [1, 2, 4]


async def test_what_stands_on_a_conflict_is_a_conflict_whatever_the_version(play: Stage) -> None:
    """P19: somebody edits the instance by hand and counts its version up. e1, run on version 1, is a conflict; e2, run on e1's result,
    expects version 2, which is what the hand wrote: it must not be applied with e1's effects inside."""
    await play.send("a", 0, 1, 2)
    e0, e1, e2 = play.queued()
    fence = await play.own()
    assert await play.committed(fence, play.ended(e0, 0, log=[0])) == ["applied"]
    play.redis.hset(play.part.instance("a"), mapping={"version": 2, "data": '{"log":[9]}'})
    batch = [play.ended(e1, 1, log=[0, 1]), play.ended(e2, 2, log=[0, 1, 2])]
    assert await play.committed(fence, *batch) == ["conflict", "conflict"]
    assert play.log("a") == [9]
    batch = [play.ended(e1, 2, log=[9, 1]), play.ended(e2, 3, log=[9, 1, 2])]
    assert await play.committed(fence, *batch) == ["applied", "applied"]


async def test_a_resent_commit_tells_a_cancelled_command_from_an_applied_one(play: Stage, proxy: FaultyProxy) -> None:
    """P19: a's command was cancelled before the commit came, b's was applied, and the answer was lost. The resend is only seen; it
    must say gone and applied, though both have an outcome now."""
    ids = [(await play.send(key, 1))[0] for key in "ab"]
    commands = play.queued()
    shaky = await Router(proxy.url).open()
    try:
        fence = Fence(shaky, play.part, (await play.own()).token, "w1")
        assert await play.client.cancel(ids[0]) == "cancelled"
        proxy.lose_reply("commit")
        sent = play.commit(fence, *(play.ended(c, 0, log=[1]) for c in commands))
        assert words(await fence.answer(sent), 2) == ["gone", "applied"]
    finally:
        await shaky.close()
    play.abandon()
    async with play.worker():
        await wait_until(lambda: play.redis.xlen(play.part.commands) == 0)


DAMAGED = ["commands", "history", "ready", "timers", "timers_data", "outcomes", "in", "once", "inbox", "instance"]


@pytest.mark.leaves_work
@pytest.mark.parametrize("damaged", DAMAGED)
async def test_a_damaged_key_tears_nothing(play: Stage, damaged: str) -> None:
    """P19, I3: somebody set one of the keys that a commit writes to a text. The script raises before its first write: else a
    state would be there without its outcome, or the other way round."""
    await play.send("a", 1, idempotency_key="k")
    [c] = play.queued()
    fence = await play.own()
    await fence.answer(fence.start([c]))
    await fence.answer(fence.postpone(c, [("@attempts", b"1")], [], due_ms=NEVER, wake_data=wake("a")))
    c.parked = c.journalled = c.timed = True
    period = int(play.redis.time()[0]) // 60
    p = play.part
    names = {"outcomes": [p.outcomes(period), p.outcomes(period + 1)], "in": [p.in_state("IDLE")], "once": [c.once]}
    names |= {"inbox": [p.inbox("a")], "instance": [p.instance("a")]}
    for name in names.get(damaged) or [getattr(p, damaged)]:
        play.redis.set(name, "oops")
    before = play.contents()
    with pytest.raises(ScriptFailed, match="WRONGTYPE"):
        await play.committed(fence, play.ended(c, 0, log=[1]))
    assert play.contents() == before
    play.redis.delete(play.part.commands)  # the leak check asks it for its length


async def test_one_damaged_instance_costs_its_own_command_only(play: Stage) -> None:
    """P20: the owner has b's state in memory when somebody sets its key to a text. The batch with a's, b's and c's commands raises; it is
    halved until b's is alone, and buried; the others are applied once."""
    async with play.worker():
        for key in "abc":
            [id] = await play.send(key, 1)
            assert await play.outcome(id) == "completed"
        play.redis.set(play.part.instance("b"), "oops")
        handles = await play.client.send_many([play.machine.note(key, n=2) for key in "abc"])
        assert [(await h.outcome(timeout=10)).outcome for h in handles] == ["completed", "failed", "completed"]
        play.redis.delete(play.part.instance("b"))
        [letter] = await play.client.failed("probe")
        assert letter.id == handles[1].id
        assert "WRONGTYPE" in letter.reason
    assert (play.log("a"), play.log("c")) == ([1, 2], [1, 2])


async def test_a_batch_that_raises_is_halved_until_one_is_alone(play: Stage, hooks: dict[str, Any]) -> None:
    """P20: what makes the commit raise is found by the commit only (here: an idempotency record that was set to a text while its
    command ran). Of one batch of three, that one is buried with the error, the others are applied, once."""

    def damage(self: Any, ctx: Any, n: int) -> None:
        if n == 2:
            play.redis.set(play.part.once("b", "k"), "oops")

    hooks["pure"] = damage
    async with play.worker() as worker:
        held = Held(worker._router, "load")
        sent = [play.send(key, n, transition="pure", idempotency_key="k" if key == "b" else None) for n, key in enumerate("abc", 1)]
        [[a], [b], [c]] = await asyncio.gather(*sent)
        await wait_until(lambda: held.answered)
        await held.release()
        assert [await play.outcome(id) for id in (a, b, c)] == ["completed", "failed", "completed"]
        [letter] = await play.client.failed("probe")
        assert letter.id == b
        assert "WRONGTYPE" in letter.reason
        play.redis.delete(play.part.once("b", "k"))
    assert (play.log("a"), play.log("b"), play.log("c")) == ([1], [], [3])


async def test_a_damaged_journal_costs_its_own_command_only(play: Stage, hooks: dict[str, Any]) -> None:
    """P20: a waiting command's journal was set to a text. It is buried when its turn comes; the partition and its key go on."""
    hooks["work"] = lambda self, ctx, n: ctx.sleep(NEVER / 1000) if n == 1 else ctx.sleep(0)
    async with play.worker() as worker:
        [one, two] = await play.send("a", 1, 2, transition="work")
        await wait_until(lambda: play.inbox("a") == [one, two] and play.redis.zscore(play.part.timers, one))
        play.redis.set(play.part.steps(one), "oops")
        play.redis.zadd(play.part.timers, {one: 1})
        [partition] = worker.partitions.values()
        token = play.token
        partition._look("")
        assert await play.outcome(one) == "failed"
        assert await play.outcome(two) == "completed"
        assert play.token == token


@pytest.mark.leaves_work
async def test_a_damaged_inbox_costs_its_own_key_only(play: Stage, hooks: dict[str, Any]) -> None:
    """P20: a sleeping command's inbox was set to a text; its timer fires together with another one's: that one wakes."""
    hooks["work"] = lambda self, ctx, n: ctx.sleep(0.05 if n == 2 else NEVER / 1000)
    async with play.worker(suspend_after_s=0.0) as worker:
        [one] = await play.send("a", 1, transition="work")
        await wait_until(lambda: play.redis.zscore(play.part.timers, one))
        play.redis.set(play.part.inbox("a"), "oops")
        play.redis.zadd(play.part.timers, {one: 1})
        [two] = await play.send("b", 2, transition="work")
        assert await play.outcome(two) == "completed"
        assert len(worker.partitions) == 1


USED_UP = "18446744073709551615-18446744073709551615"


@pytest.mark.leaves_work
async def test_a_history_without_ids_tears_no_commit(play: Stage) -> None:
    """An entry of the far future was added to the history by hand: XADD raises. Nothing was written before it, the idempotency record
    least of all; the batch is applied when the history was moved away."""
    handle = await play.client.send("probe", "a", "note", {"n": 1}, idempotency_key="k")
    [c] = play.queued()
    once = play.part.once("a", "k")
    fence = await play.own()
    play.redis.xadd(play.part.history, {"by": "hand"}, id=USED_UP)
    before = play.contents()
    with pytest.raises(ScriptFailed):
        await play.committed(fence, play.ended(c, 0, log=[1]))
    assert play.redis.hget(once, "outcome") is None
    assert play.contents() == before
    play.redis.rename(play.part.history, "aside")
    play.redis.delete("aside")
    fence = await play.take_over("w2")
    assert await play.committed(fence, play.ended(c, 0, log=[1])) == ["applied"]
    assert play.redis.hget(once, "outcome")
    assert handle.id == c.id


@pytest.mark.leaves_work
@pytest.mark.parametrize("log", ["history", "failed"])
async def test_a_log_without_ids_tears_no_burial_sweep_or_cancel(play: Stage, log: str) -> None:
    """The same for the scripts that end a command otherwise."""
    [one, two] = await play.send("a", 1, 2)
    c, lost = play.queued()
    fence = await play.own()
    play.redis.xadd(getattr(play.part, log), {"by": "hand"}, id=USED_UP)
    play.redis.xdel(play.part.commands, lost.entry)  # for the sweep
    before = play.save()
    json = outcome.failed(c.id, "a", "note", "", "as told", "x", "", 1)
    calls: list[Callable[[], Awaitable[Any]]] = [lambda: fence.answer(fence.bury(c, json, 1, "", ["id", c.id, "reason", "as told"]))]
    if log == "history":
        calls += [lambda: fence.answer(fence.sweep([(two, lost.entry, json)])), lambda: play.client.cancel(one)]
    for call in calls:
        with pytest.raises((ScriptFailed, ReplyError)):
            await call()
        after = {name: dump for name, (_, dump) in play.save().items() if name != keys.audit(play.namespace, "probe")}
        assert after == {name: dump for name, (_, dump) in before.items()}
        fence = await play.take_over(f"w{len(calls)}", 7)
        before = play.save()
    assert play.queued() == [c]
