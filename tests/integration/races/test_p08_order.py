"""P8 Entry-id order: a key's commands run in the order of their entry ids, wherever they lie."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.races.stage import NEVER, Gate, Held, Stage, wake
from tests.waiting import wait_until


async def test_postpone_takes_the_read_ahead_to_the_left_of_what_was_parked(play: Stage) -> None:
    """P8: e1 runs, e2 e3 were read ahead, e4 was parked behind the busy key. e1 goes to sleep: e1 e2 e3 must lie in front of e4.
    (Appending behind the inbox ran e4 e1 e2 e3 after a takeover.)"""
    ids = await play.send("a", 1, 2, 3, 4)
    e1, e2, e3, e4 = play.queued()
    fence = await play.own()
    await fence.answer(fence.start([e1]))
    await fence.answer(fence.park({"a": [e4]}, {"a": True}))
    assert await fence.answer(fence.postpone(e1, [("@attempts", b"1")], [e2, e3], due_ms=1, wake_data=wake("a"))) == b"asleep"
    assert play.inbox("a") == ids
    assert play.queued() == []
    play.abandon()
    async with play.worker():
        assert await play.outcome(ids[3]) == "completed"
        assert play.log("a") == [1, 2, 3, 4]


async def test_older_entries_in_the_stream_run_before_a_parked_head(play: Stage) -> None:
    """P8: the owner had read e1..e3 of a busy key and parked e3, then died. e1 e2 are still in the stream, e3 is the inbox's head
    and ready. The next owner runs e1 e2 e3."""
    await play.send("a", 1, 2, 3)
    e3 = play.queued()[2]
    fence = await play.own()
    await fence.answer(fence.park({"a": [e3]}, {"a": True}))
    play.abandon()
    async with play.worker():
        await wait_until(lambda: len(play.log("a")) == 3)
    assert play.log("a") == [1, 2, 3]


async def test_older_entries_that_are_read_late_go_before_what_was_parked(play: Stage, hooks: dict) -> None:
    """P8: an owner died with e1..e20 of a key in memory and e21..e30 parked. The next one has read e1 and runs it, for long, when e2..
    come from the stream: they are to be parked, and their place is before e21, not at the end."""
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    ids = await play.send("a", *range(1, 31), transition="work")
    fence = await play.own()
    await fence.answer(fence.park({"a": play.queued()[20:]}, {"a": True}))
    play.abandon()
    async with play.worker(window=3, read_ahead=0, wait=False):
        await wait_until(lambda: len(play.inbox("a")) >= 27)
        inbox = play.inbox("a")
        assert inbox == [id for id in ids if id in inbox]  # one that is not read yet may be missing
        gate.let_all()
        assert await play.outcome(ids[-1]) == "completed"
    assert play.log("a") == list(range(1, 31))


@pytest.mark.leaves_work
async def test_an_inbox_is_in_entry_order_whatever_is_parked_when(play: Stage) -> None:
    """P8: parked in any order, with an element in between that somebody pushed by hand."""
    ids = await play.send("a", *range(12))
    commands = play.queued()
    fence = await play.own()
    for some in ([6, 7], [10], [2, 3, 8], [0, 4, 5, 9, 11], [1]):
        await fence.answer(fence.park({"a": [commands[i] for i in some]}, {"a": True}))
    assert play.inbox("a") == ids
    play.redis.rpush(play.part.inbox("b"), "oops")
    [late] = await play.send("b", 1)
    await fence.answer(fence.park({"b": play.queued("b")}, {"b": True}))
    assert play.redis.lrange(play.part.inbox("b"), 0, -1)[1].split(" ")[1] == late


async def test_younger_entries_go_behind_a_parked_head(play: Stage) -> None:
    """P8: e1 sleeps in the inbox, e2 came afterwards and lies in the stream when another owner loads the key: e2 waits behind e1."""
    [first] = await play.send("a", 1)
    [e1] = play.queued()
    fence = await play.own()
    assert await fence.answer(fence.postpone(e1, [("@attempts", b"1")], [], due_ms=NEVER, wake_data=wake("a"))) == b"asleep"
    [second] = await play.send("a", 2)
    play.abandon()
    async with play.worker():
        await wait_until(lambda: play.inbox("a") == [first, second])
        play.redis.zadd(play.part.timers, {first: 1})
        [look] = await play.send("b", 1, delay=0)  # so that the timers are looked at
        assert await play.outcome(look) == await play.outcome(second) == "completed"
    assert play.log("a") == [1, 2]


async def test_a_pause_keeps_the_order_of_what_was_read_ahead_and_what_was_parked(play: Stage, hooks: dict) -> None:
    """P8: e1 runs, e2 e3 are read ahead in memory, e4 e5 were parked. The instance is paused and e1 ends: e2 e3 leave memory, and
    go in front of e4 e5, not behind. After the resume all run in order."""
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    async with play.worker(read_ahead=2) as worker:
        ids = await play.send("a", 1, transition="work")
        await wait_until(lambda: gate.came)
        ids += await play.send("a", 2, 3, 4, 5, transition="work")
        await wait_until(lambda: play.inbox("a") == ids[3:])
        await play.client.pause("probe", "a")
        [partition] = worker.partitions.values()
        await wait_until(lambda: partition.lanes["a"].stale)
        gate.let_all()
        await wait_until(lambda: len(play.inbox("a")) == 4)
        assert play.inbox("a") == ids[1:]
        await play.client.resume("probe", "a")
        assert await play.outcome(ids[4]) == "completed"
    assert play.log("a") == gate.came == [1, 2, 3, 4, 5]


async def test_a_command_that_is_tried_again_keeps_its_place(play: Stage, hooks: dict) -> None:
    """P8, I2: e1 raises twice while e2 e3 lie behind it in memory: it is tried again before them, each time."""
    gate, tries = Gate(), []
    hooks["work"] = lambda self, ctx, n: attempt(n)

    async def attempt(n: int) -> None:
        tries.append(n)
        await gate(n)
        if tries.count(1) < 3:
            raise RuntimeError("not yet")

    async with play.worker() as worker:
        ids = await play.send("a", 1, transition="work")
        await wait_until(lambda: gate.came)
        ids += await play.send("a", 2, 3, transition="work")
        [partition] = worker.partitions.values()
        await wait_until(lambda: len(partition.lanes["a"].queue) == 2)
        gate.let_all()
        assert await play.outcome(ids[2]) == "completed"
    assert tries == [1, 1, 1, 2, 3]
    assert play.log("a") == [1, 2, 3]


async def test_a_halted_key_keeps_its_order(play: Stage, hooks: dict) -> None:
    """P8, P20: three conflicts in a row halt a key whose later commands were parked: what ran and did not commit goes in front."""
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: meddle(n)
    times = 0

    async def meddle(n: int) -> None:
        nonlocal times
        times += n == 1
        if times == 1:
            await gate(n)
        if n == 1 and times <= 3:
            play.redis.hset(play.part.instance("a"), mapping={"state": "IDLE", "version": 100 + times, "data": '{"log":[]}', "entered": 1})

    async with play.worker(read_ahead=1):
        ids = await play.send("a", 1, transition="work")
        await wait_until(lambda: gate.came)
        ids += await play.send("a", 2, 3, 4, transition="work")
        await wait_until(lambda: play.inbox("a") == ids[2:])
        gate.let_all()
        await wait_until(lambda: play.inbox("a") == ids)
        await play.client.resume("probe", "a")
        assert await play.outcome(ids[3]) == "completed"
    assert play.log("a") == [1, 2, 3, 4]


async def test_a_command_that_is_parked_while_the_inbox_is_found_empty_is_not_forgotten(play: Stage, hooks: dict) -> None:
    """P8: the owner has emptied a key's inbox and asks for more; the answer, nothing, is on its way when e3 is read, and parked, and
    that is answered, too. Then the older answer is handled: e3 must not be overlooked, and e4 not overtake it."""
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    async with play.worker(read_ahead=0) as worker:
        [one] = await play.send("a", 1, transition="work")
        await wait_until(lambda: gate.came)
        [two] = await play.send("a", 2, transition="work")
        await wait_until(lambda: play.inbox("a") == [two])
        gate.let(1)
        await wait_until(lambda: gate.came == [1, 2])
        held = Held(worker._router, "LRANGE")
        gate.let(2)
        await wait_until(lambda: held.answered)
        assert await play.outcome(two) == "completed"
        [three] = await play.send("a", 3, transition="work")
        [partition] = worker.partitions.values()
        await wait_until(lambda: play.inbox("a") == [three] and not partition.lanes["a"].parking)
        gate.let_all()
        await held.release()
        [four] = await play.send("a", 4, transition="work")
        assert [await play.outcome(id) for id in (three, four)] == ["completed", "completed"]
    assert play.log("a") == [1, 2, 3, 4]
    assert await play.outcome(one) == "completed"


async def test_a_command_that_arrives_before_the_inbox_is_asked_is_not_forgotten(
    play: Stage, hooks: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: the owner has decided to ask for the inbox; e3 arrives before the question is written, is to be parked, and that is written
    after it. The answer, nothing, is older than e3, which must not be overlooked."""
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    async with play.worker(read_ahead=0) as worker:
        [partition] = worker.partitions.values()
        [one] = await play.send("a", 1, transition="work")
        await wait_until(lambda: gate.came)
        [two] = await play.send("a", 2, transition="work")
        await wait_until(lambda: play.inbox("a") == [two])
        gate.let(1)
        await wait_until(lambda: gate.came == [1, 2])
        spawn, take, entry = partition.spawn, partition.take, ""

        def spawned(work: Any) -> Any:
            nonlocal entry
            task = spawn(work)
            if work.__name__ == "_fetch" and not entry:
                fields = {"id": "probe.0.three", "key": "a", "transition": "work", "args": '{"n":3}'}
                entry = play.redis.xadd(play.part.commands, fields)
                play.redis.hset(play.part.accepted, "probe.0.three", entry)
                take([(entry.encode(), [x.encode() for pair in fields.items() for x in pair])])
            return task

        monkeypatch.setattr(partition, "spawn", spawned)
        # the reader comes with it once more
        monkeypatch.setattr(
            partition, "take", lambda entries: take(rest) if (rest := [e for e in entries if e[0] != entry.encode()]) else None
        )
        gate.let_all()
        assert await play.outcome("probe.0.three") == "completed"
        [four] = await play.send("a", 4, transition="work")
        assert await play.outcome(four) == "completed"
    assert play.log("a") == [1, 2, 3, 4]
    assert one


async def test_a_takeover_after_each_park_and_postpone_leaves_the_order(play: Stage, hooks: dict) -> None:
    """P8: the owner changes after each of ten commands that retry once and are parked meanwhile: they still run in order."""
    failed: set[int] = set()

    async def once_more(self: object, ctx: object, n: int) -> None:
        if n not in failed:
            failed.add(n)
            raise RuntimeError("once more")

    hooks["work"] = once_more
    ids = await play.send("a", *range(10), transition="work")
    for least in (1, 4, 7):
        async with play.worker(suspend_after_s=0.0, read_ahead=1):
            await wait_until(lambda least=least: len(play.log("a")) >= least)
    async with play.worker():
        assert await play.outcome(ids[-1]) == "completed"
    await asyncio.sleep(0)
    assert play.log("a") == list(range(10))


@pytest.mark.leaves_work
async def test_a_commit_from_the_middle_of_an_inbox_is_a_conflict(play: Stage) -> None:
    """P8: whatever a confused owner believes, a command that is not its inbox's head is not committed."""
    await play.send("a", 1, 2)
    e1, e2 = play.queued()
    fence = await play.own()
    await fence.answer(fence.park({"a": [e1, e2]}, {"a": True}))
    e1.parked = e2.parked = True
    assert await play.committed(fence, play.ended(e2, 0, log=[2])) == ["conflict"]
    assert play.inbox("a") == [e1.id, e2.id]
    assert play.log("a") == []
