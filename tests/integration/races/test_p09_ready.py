"""P9 T:ready and inboxes are served when all that is older was read; I2: other keys never wait."""

from __future__ import annotations

from tests.integration.races.stage import Gate, Stage, wake
from tests.waiting import wait_until


async def test_an_inbox_waits_until_all_that_is_older_was_read(play: Stage) -> None:
    """P9: e1 is read after a takeover and ends; e4 lies in the inbox; e2 e3 are at the end of a long stream. The lane has nothing more in
    memory, but must not go on with e4."""
    await play.send("K", 1)
    await play.client.send_many([play.machine.note(f"f{i}", n=1) for i in range(300)])
    await play.send("K", 2, 3, 4)
    *_, e4 = play.queued("K")
    fence = await play.own()
    await fence.answer(fence.park({"K": [e4]}, {"K": True}))
    play.abandon()
    async with play.worker(window=16):
        await wait_until(lambda: len(play.log("K")) == 4)
    assert play.log("K") == [1, 2, 3, 4]


async def test_a_few_busy_keys_do_not_hold_up_the_others(play: Stage, hooks: dict) -> None:
    """I2: two keys run for long, and more commands come for them than the partition's window holds. What waits behind them is
    parked, and a third key's command runs."""
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    async with play.worker(window=16, read_ahead=8):
        busy = [await play.send(key, *range(30), transition="work") for key in ("a", "b")]
        [other] = await play.send("c", 1)
        assert await play.outcome(other) == "completed"
        gate.let_all()
        for ids in busy:
            assert await play.outcome(ids[-1]) == "completed"
    assert play.log("a") == play.log("b") == list(range(30))


async def test_ready_keys_wait_until_all_that_is_older_was_read(play: Stage, hooks: dict) -> None:
    """P9: an owner died with e1 of key K at the end of a long stream and e2 parked, ready. The next owner's window is full before it
    has read so far: a read that got all it asked for does not mean that nothing is left. K's e1 runs before its e2."""
    for n in range(7):
        await play.client.send_many([play.machine.note(f"f{n}-{i}", n=1) for i in range(100)])
    await play.send("K", 1, 2)
    *_, e2 = play.queued("K")
    fence = await play.own()
    await fence.answer(fence.park({"K": [e2]}, {"K": True}))
    play.abandon()
    async with play.worker(window=200):
        await wait_until(lambda: len(play.log("K")) == 2)
    assert play.log("K") == [1, 2]


async def test_ready_says_which_inbox_heads_may_run(play: Stage) -> None:
    """P9: parking a runnable command adds its key, suspending removes it, the wake-up adds it, the commit that empties the inbox
    removes it; and a commit that leaves a runnable head keeps it."""
    ids = await play.send("a", 1, 2)
    e1, e2 = play.queued()
    fence = await play.own()

    def ready() -> bool:
        return play.redis.zscore(play.part.ready, "a") is not None

    await fence.answer(fence.park({"a": [e1, e2]}, {"a": True}))
    assert ready()
    e1.parked = e2.parked = True
    await fence.answer(fence.postpone(e1, [("@attempts", b"1")], [], due_ms=1, wake_data=wake("a")))
    assert not ready()
    assert await fence.answer(fence.wake([("wake", ids[0], "a", ())])) == [b"done", b"ready"]
    assert ready()
    e1.journalled = e1.timed = True
    assert await play.committed(fence, play.ended(e1, 0, log=[1])) == ["applied"]
    assert ready()
    assert await play.committed(fence, play.ended(e2, 1, log=[1, 2])) == ["applied"]
    assert not ready()
